# The settings of a config whose key was written by the CLI. Where the key goes is no setting: whatever changes that carries the
# key, and is for the CLI too. The state has these settings and nothing else of the config.

terraform {
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.8"
    }
  }
}

resource "vault_generic_endpoint" "us_south" {
  path = "apic/config/us-south"
  data_json = jsonencode({
    rotation_period       = 30 * 24 * 3600
    rotation_grace_period = 600
  })

  # A read answers every other field of the config too.
  ignore_absent_fields = true
  # Without it, `tofu destroy` deletes the config, and with it the key, which nobody has after a rotation.
  disable_delete = true
}
