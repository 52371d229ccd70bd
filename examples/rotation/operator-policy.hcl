# Copyright (c) The vault-plugin-secrets-apic authors
# SPDX-License-Identifier: MPL-2.0

# Who may bring a key, rotate it and set its schedule, and can read none of it back.
path "apic/config/us-south" {
  capabilities = ["create", "update", "patch", "read"]
}

path "apic/config/us-south/rotate" {
  capabilities = ["update"]
}

# It says what would stop a rotation, and changes nothing.
path "apic/config/us-south/check" {
  capabilities = ["read"]
}

# It says whether the key works, and why a rotation failed.
path "apic/status/us-south" {
  capabilities = ["read"]
}
