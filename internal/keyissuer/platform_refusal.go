// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"net/http"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// byHand is what is left to do where the platform makes no keys for Vault.
const byHand = "create an API key by hand and write the config again with api_key"

// explainPlatform is the explain of a session with the platform, whose own errors have
// one form. Their texts are not ours to repeat.
func explainPlatform(wanted action, a *upstream.Answer, _ []upstream.Secret) (because upstream.Refusal, own bool) {
	own = tokenservice.PlatformStatus(a.Body) == a.Status
	because = platformRefusal(wanted, a.Status, own)
	because.Code = tokenservice.PlatformCode(a)
	return because, own
}

func platformRefusal(wanted action, status int, own bool) upstream.Refusal {
	switch {
	case status == http.StatusUnauthorized:
		return upstream.Refusal{
			Reason: "does not accept the token",
			Advice: "it was revoked, or is of another API Connect; " + byHand,
		}
	case status == http.StatusForbidden:
		return upstream.Refusal{
			Reason: "does not let the token's user " + string(wanted),
			Advice: "API keys are for users of an OIDC user registry: ask an administrator of API Connect whether this user may have and manage them; else " + byHand,
		}
	case status == http.StatusNotFound && !wanted.isAboutOneKey():
		return upstream.Refusal{
			Reason: "has no API for API keys",
			Advice: "check region and " + platformURLField + "; if they are right, this API Connect can't make keys for Vault: " + byHand,
		}
	case status == http.StatusNotFound && own:
		return upstream.Refusal{Reason: "does not know the API key"}
	case wanted == createKey && isConflict(status):
		return upstream.Refusal{
			Reason: "refused to create an API key",
			Advice: "ask an administrator of API Connect what Cloud Manager allows (Settings, Onboarding: API Key timeout, Multiple use of apikey), and delete API keys that nobody uses; else " + byHand,
		}
	case wanted == deleteKey && isConflict(status):
		return upstream.Refusal{
			Reason: "refused to " + string(wanted),
			Advice: "delete it by hand, as this user or an administrator of API Connect",
		}
	default:
		return upstream.Refusal{Reason: "refused to " + string(wanted), Advice: "check region and " + platformURLField}
	}
}
