// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Ref names a record: a config's by the config's name alone, a tombstone by the name
// and the UID that the config had.
type Ref struct{ Config, Tombstone string }

// String is fit for messages.
func (r Ref) String() string {
	if r.Tombstone != "" {
		return fmt.Sprintf("deleted config %q", r.Config)
	}
	return fmt.Sprintf("config %q", r.Config)
}

var (
	// ErrNoRecord is a Store's error for a config, or tombstone, that is not stored.
	ErrNoRecord = errors.New("nothing is stored under that name")
	// ErrConflict is a Claim's error for a Save that found something else stored than
	// the claim has last seen. Nothing was written.
	ErrConflict = errors.New("the stored config has changed meanwhile")
	// ErrClosed is the error of an Engine that was closed.
	ErrClosed = errors.New("the mount is being unloaded")
	// ErrNoSuchKey is a Session's error for an id that the issuer does not know, and an
	// Issuer's for a value that it does not know, if it tells that from other refusals.
	ErrNoSuchKey = errors.New("the issuer knows no such key")
)

// ClaimedError says that somebody else has the exclusive right to change a record.
type ClaimedError struct {
	Ref Ref
	// Why completes the sentence "it is being ...".
	Why string
}

func (e *ClaimedError) Error() string {
	return fmt.Sprintf("%s is being %s; try again later", e.Ref, e.Why)
}

// Store holds the records of all configs, and their tombstones.
type Store interface {
	// Claim takes the exclusive right, in this process, to change one record, and reads
	// the record from storage, not from memory; what is in use follows what was read. It
	// does not wait: while somebody else has the right it fails with a *ClaimedError. It
	// fails with ErrNoRecord where none is stored. why completes the sentence "the config
	// is being ...".
	Claim(ctx context.Context, ref Ref, why string) (Claim, error)
}

// Claim is the exclusive right to change one record. Its methods are called by one
// goroutine at a time. Whatever is stored or reloaded is told to the Holders: Reserve
// before a put, Reconcile after it, and Seen after a read: a read of the claimed record,
// no matter who makes it, clears no mark of Condemn that a Save is to follow.
type Claim interface {
	// Record is what was last read or saved. The caller changes nothing in it.
	Record() Record
	// Plan is what the config's settings say. It is zero for a tombstone.
	Plan() Plan
	// Save stores next if the record that is stored equals Record: it reads, compares (else
	// ErrConflict) and puts. After another error it is in doubt what is stored, and Reload
	// comes before the next Save. A put that was sent is waited for, not abandoned when ctx
	// ends: it could land after those that follow it. What is in use in memory is replaced
	// only after the put has succeeded.
	Save(ctx context.Context, next Record) error
	// Reload reads what is stored, which is then also what is in use.
	Reload(ctx context.Context) error
	// Try gets a token with a key, at the service that the settings name. Nothing is
	// stored.
	Try(ctx context.Context, key Key) (Trial, error)
	// Adopt is Save of a record that came of the trial. If it succeeds, the trial's token
	// is the one that readers share; if not, what is in use stays in use.
	Adopt(ctx context.Context, next Record, trial Trial) error
	// Remove deletes the stored tombstone.
	Remove(ctx context.Context) error
	Release()
}

// Trial is a Store's own: a token that was got with a key. It is handed back to Adopt,
// or closed.
type Trial interface {
	Token() Token
	Close()
}

// Plan is what a config's settings say about its rotation.
type Plan struct {
	// Kind, Issuer and CACert are where a successor is made, and what it is trusted by. An
	// empty Issuer makes none.
	Kind, Issuer, CACert string
	// Renew says that keys work once, so that each token takes a key of its own.
	Renew bool
	// Reuse says that such keys are used until a rotation is due, where they turn out to work
	// more than once. It takes Renew.
	Reuse bool
	// Grace is how long a replaced key lives on.
	Grace time.Duration
	// Secrets are those of the config beside its keys, which no issuer may name a key by.
	Secrets []Secret
	// Due is when the next rotation is due, by this process's clock. Zero is never.
	Due time.Time
	// Until is when it may begin no more if it has not begun by then. Zero is never. What
	// was begun is finished all the same, and what is asked for is done.
	Until time.Time
	// Fresh says that this process created the config, under a name of which storage held
	// neither config nor tombstone: no write of a process before it can land on it late.
	Fresh bool
}

// binding is where a successor is made.
func (p Plan) binding() Binding { return Binding{Kind: p.Kind, Issuer: p.Issuer, CACert: p.CACert} }

// Issuer is where keys are made and deleted. The errors of its methods, and of a
// Session's, are a *upstream.Error or wrap ErrNoSuchKey.
type Issuer interface {
	// Login opens a session at the binding's address, trusting the binding's CA. value is
	// what the issuer takes for a login: IAM an API key, the platform one of its tokens. The
	// caller closes the session.
	Login(ctx context.Context, at Binding, value Secret) (Session, error)
}

// Session calls an issuer with the rights of the key that it was opened with.
type Session interface {
	// Details describes the key that the session was opened with.
	Details(ctx context.Context) (Details, error)
	// Create makes a key. Unless its error is a *upstream.Error without OutcomeUnknown,
	// there may be one. It is sent once.
	Create(ctx context.Context, key NewKey) (Details, Secret, error)
	// Find returns the keys of an identity whose names begin with prefix. Lists lag.
	Find(ctx context.Context, prefix string, of Binding) ([]Details, error)
	// List returns all keys of an identity, for people to be told of. Lists lag.
	List(ctx context.Context, of Binding) ([]Details, error)
	// Get describes the key of an id, or fails with ErrNoSuchKey.
	Get(ctx context.Context, id string) (Details, error)
	// Disable keeps the key of an id from being used. It fails with errors.ErrUnsupported
	// where there is no such thing.
	Disable(ctx context.Context, id string) error
	// Delete deletes the key of an id, or fails with ErrNoSuchKey.
	Delete(ctx context.Context, id string) error
	// Now is the time by the issuer's clock.
	Now() time.Time
	Close()
}

// Details is a key as its issuer describes it.
type Details struct {
	ID, Name            string
	AccountID, Identity string
	Locked, Disabled    bool
	// CreatedAt and ExpiresAt are zero where the issuer does not say.
	CreatedAt, ExpiresAt time.Time
	// Description and the settings below are carried over to a successor.
	Description      string
	ActionWhenLeaked string
	SupportSessions  bool
	// NotCarried names the settings, as the issuer calls them and separated by commas, that a
	// successor could not be given as they are.
	NotCarried string
}

// isOf says whether the key is of the account and identity of a binding.
func (d Details) isOf(b Binding) bool { return d.AccountID == b.AccountID && d.Identity == b.Identity }

// NewKey is a key to be made: of this name, for the identity and with the settings of
// another one.
type NewKey struct {
	Name string
	// Of is the address, account and identity.
	Of Binding
	// Like is the key that it is to succeed.
	Like Details
	// TTL is how long it is to live, 0 for as long as the issuer likes. A platform may grant
	// less, or have no such thing.
	TTL time.Duration
}
