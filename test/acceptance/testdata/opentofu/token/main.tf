# What examples/opentofu/token is not: with a data source the token is in the state.

terraform {
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = "1.9.0"
    }
  }
}

data "vault_generic_secret" "apic" {
  path = "apic/token/us-south"
}

output "api_url" {
  value     = data.vault_generic_secret.apic.data["api_url"]
  sensitive = true
}
