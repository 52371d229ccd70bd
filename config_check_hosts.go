// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// nearCertificateEnd is how long before its end a certificate should have been renewed.
const nearCertificateEnd = 14 * 24 * time.Hour

// hostFacts are what was found out about the host of an address, without a secret.
type hostFacts struct {
	host  string
	reach upstream.Reach
	// err is why it was not asked.
	err error
}

// askHost asks the host of an address, unless it has asked not to be called.
func (k *checker) askHost(ctx context.Context, address string) hostFacts {
	c := k.entry.config
	facts := hostFacts{host: hostOf(address)}
	limit, release := k.limits.rateLimits.acquire(rateLimitID(address, c.CACert))
	defer release()
	if facts.err = limit.Check(); facts.err != nil {
		return facts
	}
	ctx, cancel := context.WithTimeout(ctx, c.RequestTimeout)
	defer cancel()
	facts.reach, facts.err = k.transports.Probe(ctx, address, c.CACert)
	return facts
}

// findings are none of an address that there is none of.
func (f hostFacts) findings(name, certificate string) []finding {
	switch {
	case f.host == "":
		return nil
	case f.err != nil:
		return []finding{failedFinding(name, f.err)}
	case f.reach.Failure != "" && f.reach.Untrusted:
		return []finding{
			{name, resultError, f.host + " " + f.reach.Failure, f.reach.Advice},
			{certificate, resultError, f.host + " " + f.reach.Failure, f.reach.Advice},
		}
	case f.reach.Failure != "" && f.reach.Proxied:
		return []finding{{name, resultError, f.host + ", through the proxy in Vault's environment, " + f.reach.Failure, "check that the proxy lets Vault reach it"}}
	case f.reach.Failure != "":
		return []finding{{name, resultError, f.host + " " + f.reach.Failure, cmp.Or(f.reach.Advice, "check "+name+", and the way there from Vault's host")}}
	default:
		return []finding{f.answered(name), f.certificate(certificate)}
	}
}

// answered is for a host that did, with whatever: nothing was asked that it need know.
func (f hostFacts) answered(name string) finding {
	how := "resolves and answers"
	if f.reach.Proxied {
		how = "answers through the proxy in Vault's environment, which resolves it"
	}
	if f.reach.Status >= 500 {
		return finding{name, resultWarning, fmt.Sprintf("%s %s, with HTTP %d", f.host, how, f.reach.Status), "if token or api_key has an error too, see whether IBM reports an outage, and check again later"}
	}
	return finding{name, resultOK, f.host + " " + how, ""}
}

// certificate is nothing where there was none, as on this host.
func (f hostFacts) certificate(name string) finding {
	end := f.reach.CertificateEnds
	switch left := time.Until(end); {
	case end.IsZero():
		return finding{}
	case left < nearCertificateEnd:
		return finding{name, resultWarning, fmt.Sprintf("the certificate of %s, or one in its chain, expires at %s", f.host, timeText(end)), "have it renewed; if it is in ca_cert, write the new one to endpoints/<name>"}
	default:
		return finding{name, resultOK, fmt.Sprintf("the certificate of %s expires at %s", f.host, timeText(end)), ""}
	}
}

// apiURL says whether the host resolves that readers send their tokens to. Vault calls it
// never, and whether they trust it is up to them.
func (k *checker) apiURL(ctx context.Context) finding {
	address := k.entry.config.apiURL()
	if address == "" {
		return finding{checkAPIURL, resultUnknown, "none is set, and the service has no default", "set api_url if readers need it"}
	}
	proxied, failure := k.transports.Resolve(ctx, address)
	switch host := hostOf(address); {
	case proxied:
		return finding{checkAPIURL, resultUnknown, host + " was not looked up, because Vault's proxy resolves it", ""}
	case failure != "":
		return finding{checkAPIURL, resultError, host + " " + failure, "check api_url"}
	default:
		return finding{checkAPIURL, resultOK, host + " resolves", ""}
	}
}
