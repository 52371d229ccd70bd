// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// nearExpiry is how long before its end a key is to be looked after.
	nearExpiry = 14 * 24 * time.Hour
	// defaultKeyLimit is how many keys IAM lets an identity have, unless the account has
	// raised it: "IAM limits" in IBM Cloud's documentation.
	defaultKeyLimit = 20
)

// issuerFacts are what the issuer says, and its clock.
type issuerFacts struct {
	findings  []finding
	clockRead bool
	clockSkew time.Duration
}

func (f *issuerFacts) add(name string, r result, detail, action string) {
	f.findings = append(f.findings, finding{name, r, detail, action})
}

// askIssuer logs in with the key, or where that may work once with the current token,
// and reads.
func (k *checker) askIssuer(ctx context.Context) (facts issuerFacts) {
	c := k.entry.config
	at, value := c.issuer(), c.Keys.Current.Value
	if c.TokenService == tokenservice.Platform {
		kept := c.Keys.Token
		switch {
		case !c.renews():
			facts.add(checkAPIKey, resultUnknown, "not asked: the key may work only once, and with renew=false Vault keeps no token to ask with", "")
			return facts
		case !kept.Lives():
			facts.add(checkAPIKey, resultUnknown, "not asked: the key may work only once, and there is no current token", "")
			return facts
		}
		at, value = kept.At, kept.Value
	}
	// A token that was refused is sent again no sooner than a key; its login makes no call.
	backoff, release := k.limits.backoffs.acquire(tokenTrialID(at, value))
	defer release()
	if err := backoff.Check(); err != nil {
		facts.findings = append(facts.findings, failedFinding(checkAPIKey, err))
		k.expiry(&facts, c.Keys.Current.ExpiresAt, time.Now())
		return facts
	}
	session, err := k.issuer.Login(ctx, at, value)
	if err != nil {
		facts.findings = append(facts.findings, failedFinding(checkAPIKey, err))
		k.expiry(&facts, c.Keys.Current.ExpiresAt, time.Now())
		return facts
	}
	defer session.Close()
	err = k.read(ctx, session, at, &facts)
	if at.Kind == rotation.KindPlatform && (err == nil || isRefused(err) && !errors.Is(err, rotation.ErrNoSuchKey)) {
		backoff.Record(err)
	}
	// Until an answer has a date, the session has this host's own.
	facts.clockSkew, facts.clockRead = time.Until(session.Now())*-1, at.Kind != rotation.KindPlatform || err == nil
	return facts
}

// read asks for the key, and then for all keys of its identity. It returns what the
// issuer refused.
func (k *checker) read(ctx context.Context, session rotation.Session, at rotation.Binding, facts *issuerFacts) error {
	whose, err := session.Details(ctx)
	if err != nil {
		facts.findings = append(facts.findings, failedFinding(checkAPIKey, err))
		k.rights(facts, err)
		return err
	}
	if !k.isDiscreet(whose) {
		facts.add(checkAPIKey, resultError, "the id or name of the key or of its identity, as the issuer has it, contains part of a secret", "write the config again with another api_key")
		return nil
	}
	getErr := k.key(ctx, session, whose, facts)
	k.identity(facts, whose)
	listed, listErr := session.List(ctx, at.Of(whose))
	if listErr != nil {
		facts.findings = append(facts.findings, failedFinding(checkAPIKeyCount, listErr))
	} else {
		k.countKeys(facts, at, len(listed))
		k.strangers(facts, listed)
	}
	k.rights(facts, errors.Join(getErr, listErr))
	return errors.Join(getErr, listErr)
}

// key tells of the key in use. The platform says nothing of the key that a token was got
// with, but of one whose id is known, if it is there still.
func (k *checker) key(ctx context.Context, session rotation.Session, key rotation.Details, facts *issuerFacts) error {
	present := k.entry.config.Keys.Current
	if key.ID == "" && present.ID == "" {
		facts.add(checkAPIKey, resultOK, "an imported key, whose token the issuer accepts", "")
		return nil
	}
	if key.ID == "" {
		got, err := session.Get(ctx, present.ID)
		if errors.Is(err, rotation.ErrNoSuchKey) {
			facts.add(checkAPIKey, resultWarning, present.ID+" is not there any more", "do nothing while the current token is valid: Vault makes another key with it")
			return nil
		}
		if err != nil {
			facts.findings = append(facts.findings, failedFinding(checkAPIKey, err))
			return err
		}
		key = got
	}
	if !k.isDiscreet(key) {
		facts.add(checkAPIKey, resultError, "the id or name of the key, as the issuer has it, contains part of a secret", "write the config again with another api_key")
		return nil
	}
	detail := fmt.Sprintf("%s, named %s", key.ID, quoted(key.Name))
	switch {
	case key.Disabled:
		facts.add(checkAPIKey, resultError, detail+", is disabled", "enable it at its issuer, or write the config again with another api_key")
	case key.Locked:
		facts.add(checkAPIKey, resultError, detail+", is locked: it gives tokens, but a rotation could not delete it", "unlock it at its issuer (IBM Cloud: Manage, Access (IAM), API keys)")
	default:
		facts.add(checkAPIKey, resultOK, detail, "")
	}
	k.expiry(facts, key.ExpiresAt, session.Now())
	return nil
}

func (k *checker) isDiscreet(d rotation.Details) bool {
	c := k.entry.config
	return c.Keys.IsDiscreet(c.plan(), d.ID, d.Name, d.AccountID, d.Identity)
}

// expiry judges a key's end by the issuer's clock. A key that Vault makes a successor for
// in time may be near its end.
func (k *checker) expiry(facts *issuerFacts, end, now time.Time) {
	c := k.entry.config
	due, _ := c.rotationDue(now)
	const action = "rotate the key, set rotation_period or rotation_schedule, or write the config again with another api_key"
	switch {
	case end.IsZero():
		if facts.has(checkAPIKey, resultOK) && !c.renews() {
			facts.add(checkAPIKeyExpiry, resultOK, "the issuer names no expiry of the key", "")
		}
	case !now.Before(end) && c.renews() && facts.has(checkAPIKey, resultOK):
		facts.add(checkAPIKeyExpiry, resultOK, "the key expired at "+timeText(end)+"; Vault makes the next one with the current token", "")
	case !now.Before(end):
		facts.add(checkAPIKeyExpiry, resultError, "the key expired at "+timeText(end), "write the config again with another api_key")
	case end.Sub(now) < nearExpiry && !c.renews() && (due.IsZero() || due.After(end)):
		facts.add(checkAPIKeyExpiry, resultWarning, "the key expires at "+timeText(end)+", and no rotation is due before", action)
	default:
		facts.add(checkAPIKeyExpiry, resultOK, "the key expires at "+timeText(end), "")
	}
}

func (f *issuerFacts) has(name string, r result) bool {
	for _, found := range f.findings {
		if found.name == name && found.result == r {
			return true
		}
	}
	return false
}

// identity compares whose key it is with who the config is bound to.
func (k *checker) identity(facts *issuerFacts, whose rotation.Details) {
	bound := k.entry.config.Keys.Current.Binding
	detail := identityText(whose.Identity, whose.AccountID)
	switch {
	case !bound.Known():
		facts.add(checkIdentity, resultOK, detail+"; the first rotation binds the config to it", "")
	case bound.Identity != whose.Identity || bound.AccountID != whose.AccountID:
		facts.add(checkIdentity, resultError, detail+", but the config is bound to "+identityText(bound.Identity, bound.AccountID),
			"check which server answers at the issuer's address; then write the config again with an api_key of the right identity")
	default:
		facts.add(checkIdentity, resultOK, detail+", which the config is bound to", "")
	}
}

func identityText(identity, account string) string {
	if account == "" {
		return identity
	}
	return identity + " of account " + account
}

// countKeys compares how many keys the identity has with IAM's limit. The platform's has
// no known number.
func (k *checker) countKeys(facts *issuerFacts, at rotation.Binding, n int) {
	has := "the identity has " + count(n, "API key", "API keys")
	if at.Kind == rotation.KindPlatform {
		facts.add(checkAPIKeyCount, resultOK, has, "")
		return
	}
	if n < defaultKeyLimit {
		facts.add(checkAPIKeyCount, resultOK, fmt.Sprintf("%s of %d that IAM allows by default", has, defaultKeyLimit), "")
		return
	}
	facts.add(checkAPIKeyCount, resultWarning, fmt.Sprintf("%s; IAM allows %d by default, and a rotation makes another one before it deletes one", has, defaultKeyLimit),
		"delete those that nobody uses, unless the account has raised the limit")
}

// strangers tells of keys that a rotation would refuse to go on beside.
func (k *checker) strangers(facts *issuerFacts, listed []rotation.Details) {
	keys := k.entry.config.Keys
	ids := k.engine.Strangers(rotation.Ref{Config: k.name}, keys, listed)
	if len(ids) == 0 {
		facts.add(checkUnknownAPIKeys, resultOK, "every key at the issuer that was made for this config is known", "")
		return
	}
	told := strings.Join(ids[:min(len(ids), 10)], ", ")
	if !keys.IsDiscreet(k.entry.config.plan(), told) {
		told = "their ids are left out, because they contain part of a secret"
	}
	severity := resultError
	if k.entry.config.renews() {
		severity = resultWarning // A renewal goes on.
	}
	facts.add(checkUnknownAPIKeys, severity, fmt.Sprintf("the issuer has %s made for this config that it does not know (%s): it was restored from an older snapshot, or another Vault cluster rotates the same key", count(len(ids), "key", "keys"), told),
		"if no other cluster uses them, delete them at the issuer; else write another api_key here")
}

// rights is what can be told without making and deleting a key: not much.
func (k *checker) rights(facts *issuerFacts, err error) {
	var failed *upstream.Error
	if errors.As(err, &failed) && (failed.Status == http.StatusForbidden || failed.Status == http.StatusUnauthorized) {
		facts.add(checkRights, resultError, "the identity may not even read or list its keys, as a rotation does", failed.Advice)
		return
	}
	detail := "only a rotation can tell whether the identity may create and delete keys"
	c := k.entry.config
	switch {
	case c.Keys.Current.Managed && !c.Keys.Current.CreatedAt.IsZero():
		detail += "; it could at " + timeText(c.Keys.Current.CreatedAt) + ", when the present key was made"
	case err == nil:
		detail += "; it may read and list them"
	}
	facts.add(checkRights, resultUnknown, detail, "")
}
