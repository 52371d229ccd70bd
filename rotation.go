// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/iam"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/metrics"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

const (
	// rotationTimeout bounds a rotation, and cleanupTimeout what it does after that
	// to leave one key.
	rotationTimeout = 3 * time.Minute
	cleanupTimeout  = 30 * time.Second

	// newKeyPatience is how long a new key may be refused: IBM Cloud makes it known
	// to its parts one after the other. The source asks after 5, 15, 35 and 75 s.
	newKeyPatience = 80 * time.Second

	// creationTimeout bounds the creation of a key, from its announcement on, so that
	// it is known when none can turn up any more; see creationSettles.
	creationTimeout = time.Minute
)

// rotated is the outcome of a rotation.
type rotated struct {
	config *config
	// left says why the old key is not deleted yet, or is nil.
	left error
}

// rotation is the replacement of one config's key, from the first call to the
// last. What it needs to be cleaned up after is in the write-ahead log before it
// exists.
type rotation struct {
	*backend
	storage logical.Storage
	name    string
	change  *keyChange
	// announced is the write-ahead entry, nil before there is one, and withdraw
	// takes it back.
	announced *keyWAL
	withdraw  func(context.Context)
	session   *iam.Session
	// inDoubt says that a write of the successor failed and may yet take effect.
	inDoubt bool
	// scheduled says that the config has a rotation_period.
	scheduled bool
}

// rotate replaces name's key. If a rotation of it is under way, that one's outcome
// is this one's. The rotation goes on when ctx ends.
func (b *backend) rotate(ctx context.Context, s logical.Storage, name string) (*rotated, error) {
	change, begun := b.beginKeyChange(name, "rotated")
	if begun {
		go b.runRotation(&rotation{backend: b, storage: s, name: name, change: change})
	}
	select {
	case <-change.done:
	case <-ctx.Done():
		return nil, logical.CodedError(http.StatusServiceUnavailable, fmt.Sprintf("the rotation of config %q takes long and goes on; read its status to see how it ends", name))
	}
	if change.rotated == nil && change.err == nil {
		return nil, change.conflict(name)
	}
	return change.rotated, change.err
}

func (b *backend) runRotation(r *rotation) {
	defer b.changes.end(r.name, r.change)
	r.change.err = errors.New("rotating the key failed in the plugin; the server's log says where")
	defer b.logPanic("rotating a key")
	ctx, cancel := context.WithTimeout(r.change.ctx, rotationTimeout)
	defer cancel()
	r.change.rotated, r.change.err = r.run(ctx)
	r.report()
}

// report logs the outcome and has the schedule remember a failure.
func (r *rotation) report() {
	err := r.change.err
	if err == nil {
		r.metrics.Rotated(metrics.RotationSuccess)
		keyID := r.change.rotated.config.APIKeyID
		r.Logger().Info("api key rotated", "config", r.name, "key_id", keyID)
		r.sendEvent(r.change.ctx, eventConfigRotate, r.name, "key_id", keyID)
		if left := r.change.rotated.left; left != nil {
			r.Logger().Warn("the old api key is not deleted at IAM yet and will be tried again", "config", r.name, "key_id", r.announced.Replaces, "reason", left)
		}
		return
	}
	if cause := context.Cause(r.change.ctx); cause != nil {
		r.change.err = cause
		return
	}
	r.metrics.Rotated(metrics.RotationFailure)
	r.schedule.failed(r.name, r.scheduled, err)
	r.Logger().Warn("rotating the api key failed; the present one stays", "config", r.name, "reason", err)
	r.sendEvent(r.change.ctx, eventRotateFailed, r.name)
}

func (r *rotation) run(ctx context.Context) (*rotated, error) {
	stored, err := r.rotatable(ctx)
	if err != nil {
		return nil, err
	}
	var unsettled *unsettledError
	if err := r.settleConfig(ctx, r.storage, r.name, r.change); err != nil && !errors.As(err, &unsettled) {
		return nil, fmt.Errorf("an earlier rotation has to be cleaned up first: %w", err)
	}
	session, done, err := r.loginToIAM(ctx, stored)
	if err != nil {
		return nil, err
	}
	defer done()
	r.session = session
	successor, err := r.create(ctx, stored)
	if err != nil {
		return nil, r.undo(ctx, err)
	}
	if err := r.adopt(ctx, successor); err != nil {
		return nil, r.undo(ctx, err)
	}
	return &rotated{config: successor, left: r.finish(ctx, successor)}, nil
}

// rotatable returns the stored config if its key is one that can be rotated.
func (r *rotation) rotatable(ctx context.Context) (*config, error) {
	stored, err := loadConfig(ctx, r.storage, r.name)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, noSuchConfig(r.name)
	}
	r.scheduled = stored.RotationPeriod > 0
	if err := r.fillSchedule(ctx, r.storage); err != nil {
		return nil, err
	}
	return stored, r.refuseIfShared()
}

// refuseIfShared fails if another config holds the key that is to be deleted.
func (r *rotation) refuseIfShared() error {
	other := r.schedule.otherHolder(r.name)
	if other == "" {
		return nil
	}
	return userErrorf("config %q holds the same API key, which rotation would delete; give each config a key of its own, then rotate %q", other, r.name)
}

// create makes the stored key's successor at IAM and returns the config that
// holds it. Its announcement precedes it, and then has its id.
func (r *rotation) create(ctx context.Context, stored *config) (*config, error) {
	present, err := r.session.Details(ctx)
	if err != nil {
		return nil, err
	}
	if present.Locked {
		return nil, userErrorf("the API key of config %q is locked at IAM, so that it could not be deleted after its rotation; unlock it there, then rotate", r.name)
	}
	w := &keyWAL{
		Config: r.name, IAMID: present.IAMID, AccountID: present.AccountID,
		KeyName: "vault-apic-" + r.name + "-" + strings.ToLower(rand.Text()[:12]), Replaces: present.ID,
		Since: time.Now().UTC(),
	}
	if err := r.announce(ctx, w); err != nil {
		return nil, err
	}
	creating, cancel := context.WithDeadline(ctx, w.Since.Add(creationTimeout))
	defer cancel()
	key, value, err := r.session.Create(creating, iam.NewKey{
		Name: w.KeyName, Description: "Made by Vault for the config " + r.name + ", in place of " + present.ID + ".",
		IAMID: w.IAMID, AccountID: w.AccountID,
	})
	if err != nil {
		return nil, err
	}
	known := *w
	known.KeyID = key.ID
	r.announced = &known // It is known, even if storage does not get to know it.
	if err := r.announce(ctx, &known); err != nil {
		return nil, err
	}
	return stored.withKey(string(value), key.ID), nil
}

// announce writes an entry ahead, in the place of the one before.
func (r *rotation) announce(ctx context.Context, w *keyWAL) error {
	withdraw, err := putWAL(ctx, r.storage, w)
	if err != nil {
		return err
	}
	if r.withdraw != nil {
		r.withdraw(ctx)
	}
	r.announced, r.withdraw = w, withdraw
	return nil
}

// withKey is the config after a rotation.
func (c *config) withKey(value, id string) *config {
	now := time.Now().UTC()
	next := *c
	next.APIKey, next.APIKeyID = value, id
	next.KeySetAt, next.LastRotated = now, now
	if next.RotationPeriod > 0 {
		next.NextRotation = nextRotation(now, next.RotationPeriod)
	}
	next.Revision++
	return &next
}

// adopt buys a token with the new key and stores it. From then on readers get
// tokens of the new key.
func (r *rotation) adopt(ctx context.Context, successor *config) error {
	fresh, err := r.newEntry(r.name, successor, nil)
	if err != nil {
		return err
	}
	err = buyPatiently(ctx, fresh.source)
	if err == nil {
		err = r.refuseIfShared() // Again, for that took its time.
	} else {
		err = newKeyError(err)
	}
	if err != nil {
		fresh.close()
		return err
	}
	err = r.commitEntry(ctx, r.storage, r.name, fresh, nil, r.change)
	if err == nil {
		return nil
	}
	fresh.close()
	if r.isStored(ctx, successor) {
		return nil
	}
	return err
}

// isStored says whether a write that failed had its effect all the same. A reader
// then loads the config from storage. If it had none, what is stored is written
// again: once that succeeds, the write before it, which a leader that was deposed
// may have left in the log, comes too late.
func (r *rotation) isStored(ctx context.Context, successor *config) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	defer r.entries.locks.lock(r.name)()
	r.inDoubt = true
	stored, err := loadConfig(ctx, r.storage, r.name)
	if err != nil || stored == nil {
		return false
	}
	if stored.APIKeyID == successor.APIKeyID {
		r.schedule.written(r.name, stored)
		return true
	}
	r.inDoubt = storeConfig(ctx, r.storage, r.name, stored) != nil
	return false
}

// buyPatiently buys the first token of a new key, which may be refused for a time.
func buyPatiently(ctx context.Context, source *tokensource.Source) error {
	ctx, cancel := context.WithTimeout(ctx, newKeyPatience)
	defer cancel()
	var last error
	for {
		err := source.Replace(ctx)
		if err == nil {
			return nil
		}
		var backoff *tokensource.BackoffError
		if !errors.As(err, &backoff) {
			if ctx.Err() != nil && last != nil {
				return last
			}
			last = err
			continue
		}
		timer := time.NewTimer(time.Until(backoff.RetryAt))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return last
		}
	}
}

// newKeyError says that it is the new key that bought no token. The stored key is
// well.
func newKeyError(err error) error {
	return fmt.Errorf("the new key bought no token within %s and is withdrawn; rotate again later: %w", newKeyPatience, unadvised(err))
}

// unadvised is a service's refusal without its advice, which is for a key that a
// config holds.
func unadvised(err error) error {
	var failed *upstream.Error
	if !errors.As(err, &failed) || failed.Outcome != upstream.Refused {
		return err
	}
	bare := *failed
	bare.Advice = ""
	return &bare
}

// undo leaves exactly the key that is stored, as far as that can be done now, and
// returns why the rotation failed. What cannot be done now is left announced.
func (r *rotation) undo(ctx context.Context, why error) error {
	if r.announced == nil {
		return why
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	stored, err := loadConfig(ctx, r.storage, r.name)
	if err == nil && stored == nil {
		err = noSuchConfig(r.name)
	}
	if r.inDoubt {
		err = errors.New("the key may yet turn out to be stored")
	}
	if err == nil && !r.certainlyAbsent(why) {
		err = settle(ctx, r.session, stored, r.announced)
	}
	if err != nil {
		r.unsettled.Store(true)
		r.Logger().Warn("the new api key of a rotation that failed is not deleted at IAM yet and will be tried again", "config", r.name, "key", r.announced.key(), "reason", err)
		return why
	}
	r.withdraw(ctx)
	return why
}

// certainlyAbsent says whether IAM is known not to have made the announced key.
func (r *rotation) certainlyAbsent(why error) bool {
	var failed *upstream.Error
	return r.announced.KeyID == "" && errors.As(why, &failed) && !failed.OutcomeUnknown
}

// finish deletes the old key, with the session that it opened, and withdraws the
// announcement. It is not cut short by whoever wants the config deleted.
func (r *rotation) finish(ctx context.Context, successor *config) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := settle(ctx, r.session, successor, r.announced); err != nil {
		r.unsettled.Store(true)
		return err
	}
	r.withdraw(ctx)
	return nil
}

// loginToIAM opens a session with a config's key. The caller gives its connections
// back with done.
func (b *backend) loginToIAM(ctx context.Context, c *config) (session *iam.Session, done func(), err error) {
	if c.TokenService == tokenservice.Platform {
		return nil, nil, userErrorf("keys of the platform token service have no rights at IBM Cloud IAM")
	}
	transport, release, err := b.transports.Acquire(c.CACert)
	if err != nil {
		return nil, nil, fieldError("ca_cert", err.Error())
	}
	client, err := iam.New(iam.Options{URL: c.iamURL(), Transport: transport, RequestTimeout: c.RequestTimeout, MaxRetries: c.MaxRetries})
	if err == nil {
		session, err = client.Login(ctx, upstream.Secret(c.APIKey))
	}
	if err != nil {
		release()
		return nil, nil, err
	}
	return session, release, nil
}

// logPanic keeps a panic in a goroutine from ending the process, and with it
// every mount.
func (b *backend) logPanic(doing string) {
	if p := recover(); p != nil {
		b.reportPanic(p, doing)
	}
}
