# SPDX-License-Identifier: Apache-2.0
"""What can be said of AMD code objects without an AMD GPU."""
