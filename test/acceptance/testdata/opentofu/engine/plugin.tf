# Stands in for examples/opentofu/engine/plugin.tf with the provider 1.9.0, which has no vault_plugin.

variable "plugin_sha256" {}

variable "plugin_version" {}

resource "vault_generic_endpoint" "plugin" {
  path = "sys/plugins/catalog/secret/vault-plugin-secrets-apic"
  data_json = jsonencode({
    version = var.plugin_version
    command = "vault-plugin-secrets-apic"
    sha256  = var.plugin_sha256
  })
  disable_read   = true
  disable_delete = true
}

locals {
  plugin = basename(vault_generic_endpoint.plugin.path)
}
