// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// requireTold creates a key and holds what is told of it against its id and value. An
// empty says stands for success.
func requireTold(t *testing.T, session rotation.Session, wanted rotation.NewKey, id, value, says string) rotation.Details {
	t.Helper()
	key, got, err := session.Create(t.Context(), wanted)
	if key.ID != id || string(got) != value || (err == nil) != (says == "") {
		t.Fatalf("the key is %+v, error %v", key, err)
	}
	if key.CreatedAt.IsZero() || key.CreatedAt.After(time.Now()) {
		t.Errorf("it was created at %s", key.CreatedAt)
	}
	if err != nil && (!failure(t, err).OutcomeUnknown || !strings.Contains(err.Error(), says)) {
		t.Errorf("the error is %v", err)
	}
	return key
}

// requireNoKey creates a key that nothing is told of.
func requireNoKey(t *testing.T, session rotation.Session, wanted rotation.NewKey) {
	t.Helper()
	key, value, err := session.Create(t.Context(), wanted)
	if failed := failure(t, err); key != (rotation.Details{}) || value != "" || !failed.OutcomeUnknown || failed.Attempts != 1 {
		t.Fatalf("the error is %+v", failed)
	}
}

// requireGone holds whether an issuer that answers 404 to everything means that a key is
// gone, by get, delete and the errors of other calls about it.
func requireGone(t *testing.T, session rotation.Session, other rotation.NewKey, id string, gone bool, more ...error) {
	t.Helper()
	for _, err := range append(more, errorOf(session.Get(t.Context(), id)), session.Delete(t.Context(), id)) {
		if failure(t, err); errors.Is(err, rotation.ErrNoSuchKey) != gone {
			t.Errorf("the error is %v", err)
		}
	}
	// These name no key that could be gone.
	_, find := session.Find(t.Context(), other.Name, other.Of)
	_, _, create := session.Create(t.Context(), other)
	if errors.Is(find, rotation.ErrNoSuchKey) || errors.Is(create, rotation.ErrNoSuchKey) {
		t.Errorf("the errors are %v and %v", find, create)
	}
}

func errorOf(_ rotation.Details, err error) error { return err }

// requireNotSent holds that errors come from calls that were not made.
func requireNotSent(t *testing.T, says string, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if failed := failure(t, err); failed.Attempts != 0 || failed.OutcomeUnknown || !strings.Contains(err.Error(), says) {
			t.Errorf("%d attempts, unknown %t: %s", failed.Attempts, failed.OutcomeUnknown, err)
		}
	}
}

// requireFieldNamed logs in at an address that does not parse, and with a CA that is none.
func requireFieldNamed(t *testing.T, issuer rotation.Issuer, urlField string) {
	t.Helper()
	for field, at := range map[string]rotation.Binding{urlField: {Issuer: "http://%zz"}, "ca_cert": {Issuer: "https://127.0.0.1", CACert: "no certificate"}} {
		_, err := issuer.Login(t.Context(), at, testKey)
		requireNotSent(t, field, err)
	}
}

// requireIDsChecked asks for ids that can't be one, by get, delete and other calls.
func requireIDsChecked(t *testing.T, g *ground, more ...func(id string) error) {
	t.Helper()
	for _, id := range []string{"", ".", "..", "../details", "a b", "a\nb", "?x", testKey, strings.Repeat("x", 129)} {
		requireNotSent(t, "the id of the key can't be one", errorOf(g.session.Get(t.Context(), id)), g.session.Delete(t.Context(), id))
		for _, call := range more {
			requireNotSent(t, "the id of the key can't be one", call(id))
		}
	}
	if got := g.sim.Counts().KeyCalls; got != 0 {
		t.Fatalf("%d requests were sent", got)
	}
}

// requireUnprinted prints a session in every way.
func requireUnprinted(t *testing.T, session rotation.Session) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		requireSilent(t, fmt.Sprintf(verb, session)+fmt.Sprintf(verb, struct{ Session rotation.Session }{session}))
	}
}
