# Mounts the engine, and lets an application that logs in with AppRole read a token. Needs VAULT_ADDR and a VAULT_TOKEN that may
# do all this. The state has the digest, the policy and names: no key, no token.

terraform {
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.8"
    }
  }
}

variable "path" {
  description = "Where to mount the engine."
  default     = "apic"
}

resource "vault_mount" "apic" {
  path = var.path
  type = local.plugin

  lifecycle {
    # With the mount go its keys, which nobody else has after a rotation.
    prevent_destroy = true
  }
}

resource "vault_policy" "us_south" {
  name   = "${var.path}-us-south"
  policy = "path \"${var.path}/token/us-south\" { capabilities = [\"read\"] }"
}

resource "vault_auth_backend" "approle" {
  type = "approle"
}
