# Stands in for examples/opentofu/engine/role.tf with the provider 1.9.0, which has other arguments for a role.

resource "vault_generic_endpoint" "role" {
  path = "auth/${vault_auth_backend.approle.path}/role/${vault_policy.us_south.name}"
  data_json = jsonencode({
    token_policies = [vault_policy.us_south.name]
    token_ttl      = 3600
  })
  ignore_absent_fields = true
}
