# Vault's address is taken from VAULT_ADDR. Paths are relative to where Proxy is started.

auto_auth {
  # Good for trying it. Where it stays, use the method of your platform: approle, aws, azure, kubernetes, ...
  method "token_file" {
    config = {
      token_file_path = "vault-token"
    }
  }
}

# Requests without a Vault token get Proxy's: whoever reaches the listener may read what its policy grants.
api_proxy {
  use_auto_auth_token = true
}

listener "tcp" {
  address     = "127.0.0.1:8100"
  tls_disable = true
}
