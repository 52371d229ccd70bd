# Reads a token and calls API Connect with it. Needs VAULT_ADDR, VAULT_TOKEN and curl. The token is in no state and no plan, since
# it comes from an ephemeral resource; a data source would put it into both.

terraform {
  # OpenTofu's first with ephemeral resources.
  required_version = ">= 1.11"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.8"
    }
  }
}

provider "vault" {
  # The provider makes a Vault token of its own otherwise, which takes more than the policy grants.
  skip_child_token = true
}

ephemeral "vault_generic_secret" "apic" {
  path = "apic/token/us-south"
}

resource "terraform_data" "me" {
  # With each apply.
  triggers_replace = timestamp()

  provisioner "local-exec" {
    # On standard input, because every process of the machine can see the arguments of a command.
    command = "printf 'Authorization: Bearer %s' \"$APIC_TOKEN\" | curl -fsS -H @- \"$APIC_API_URL/api/me\""
    environment = {
      APIC_API_URL = ephemeral.vault_generic_secret.apic.data["api_url"]
      APIC_TOKEN   = ephemeral.vault_generic_secret.apic.data["token"]
    }
  }
}
