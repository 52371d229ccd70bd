# Make no secret ID with OpenTofu: it would be in the state. `vault write -f auth/approle/role/apic-us-south/secret-id` makes one.
resource "vault_approle_auth_backend_role" "us_south" {
  backend        = vault_auth_backend.approle.path
  role_name      = "${var.path}-us-south"
  token_policies = [vault_policy.us_south.name]
  token_ttl      = 3600
}
