# Vault's address is taken from VAULT_ADDR. Paths are relative to where Agent is started.

auto_auth {
  # Good for trying it. Where it stays, use the method of your platform: approle, aws, azure, kubernetes, ...
  method "token_file" {
    config = {
      token_file_path = "vault-token"
    }
  }
}

env_template "APIC_API_URL" {
  contents = "{{ with secret \"apic/token/us-south\" }}{{ .Data.api_url }}{{ end }}"
}

env_template "APIC_TOKEN" {
  contents = "{{ with secret \"apic/token/us-south\" }}{{ .Data.token }}{{ end }}"
}

exec {
  command = ["./me.sh"]
  # A program's environment cannot be changed from outside, and its token ends: it has to be started anew. Say "never"
  # for a job that is over before the token's `ttl` is, and better not interrupted.
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM"
}
