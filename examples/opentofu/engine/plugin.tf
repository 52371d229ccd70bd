variable "plugin_sha256" {
  description = "The digest of the plugin's file in Vault's plugin_directory."
}

variable "plugin_version" {
  description = "The version that the file reports, as in v0.1.0."
}

resource "vault_plugin" "apic" {
  type    = "secret"
  name    = "vault-plugin-secrets-apic"
  version = var.plugin_version
  command = "vault-plugin-secrets-apic"
  sha256  = var.plugin_sha256
}

locals {
  plugin = vault_plugin.apic.name
}
