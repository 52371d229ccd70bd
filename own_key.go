// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/iam"
)

// A key that rotation made is known to nobody but Vault. When its config stops
// using it, it would be forgotten at IAM, so that it is deleted there.

// stopRotation begins the deletion of name's config, after ending a rotation that
// is under way.
func (b *backend) stopRotation(ctx context.Context, name string) (*keyChange, error) {
	for {
		change, begun := b.beginKeyChange(name, "deleted")
		if begun {
			return change, nil
		}
		change.cancel(userErrorf("config %q was deleted during its rotation", name))
		select {
		case <-change.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// dropOwnKeys deletes at IAM what rotation made for a config that is about to be
// deleted, and returns what its deleter should know. It makes no call out if
// there is nothing of the kind. While IAM cannot be asked it fails, unless force
// is set: with the config goes the right to delete the key.
func (b *backend) dropOwnKeys(ctx context.Context, s logical.Storage, name string, mine *keyChange, force bool) (warning string, err error) {
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	stored, err := loadConfig(ctx, s, name)
	var unreadable *unreadableError
	if errors.As(err, &unreadable) {
		return "What is stored could not be read. If rotation made its key, delete that at IBM.", nil
	}
	if err != nil || stored == nil {
		return "", err
	}
	told := []string{"To end the key's use elsewhere, delete it at IBM too."}
	if err := b.settleConfig(ctx, s, name, mine); err != nil {
		if !force && !isRefused(err) {
			return "", dropError(err)
		}
		told = append(told, fmt.Sprintf("What an interrupted rotation left could not be deleted at IBM: %s. If it is still there, delete it; its name begins with vault-apic-%s-.", err, name))
	}
	if stored.APIKeyID == "" {
		return strings.Join(told, " "), nil
	}
	told[0] = fmt.Sprintf("The key %s, which rotation had made, was deleted at IBM.", stored.APIKeyID)
	if err := b.deleteStoredKey(ctx, stored); err != nil {
		if !force && !isRefused(err) {
			return "", dropError(err)
		}
		told[0] = fmt.Sprintf("The key %s, which rotation had made, could not be deleted at IBM: %s. If it is still there, delete it.", stored.APIKeyID, unadvised(err))
	}
	return strings.Join(told, " "), nil
}

func dropError(err error) error {
	return fmt.Errorf("the key that rotation made has to be deleted at IAM first, and nothing was deleted; try again, or leave the key to yourself with force=true: %w", err)
}

func (b *backend) deleteStoredKey(ctx context.Context, stored *config) error {
	session, done, err := b.loginToIAM(ctx, stored)
	if err != nil {
		return err
	}
	defer done()
	return session.Delete(ctx, stored.APIKeyID)
}

// ownKey is a key that rotation made and that a write is about to replace. A nil
// one is none.
type ownKey struct {
	*backend
	announced *keyWAL
	withdraw  func(context.Context)
	// session was opened with the key itself, and is nil if that failed. done ends
	// it.
	session *iam.Session
	done    func()
}

func (o *ownKey) close() {
	if o != nil && o.session != nil {
		o.done()
	}
}

// settleBeforeNewKey settles what an interrupted rotation left behind, because the
// key that comes may not have the right to. It may even be the one whose deletion is
// left, so that it is tried after this.
func (b *backend) settleBeforeNewKey(ctx context.Context, s logical.Storage, name string) error {
	err := b.settleConfig(ctx, s, name, nil)
	if err == nil || isRefused(err) {
		return nil
	}
	return fmt.Errorf("an interrupted rotation has to be cleaned up before the key is replaced: %w", err)
}

// announceDisuse writes ahead that the stored key is going out of use, if rotation
// made it.
func (b *backend) announceDisuse(ctx context.Context, s logical.Storage, name string, stored *config) (*ownKey, error) {
	if stored.APIKeyID == "" {
		return nil, nil
	}
	own := &ownKey{backend: b, announced: &keyWAL{Config: name, KeyID: stored.APIKeyID, Since: time.Now().UTC()}}
	withdraw, err := putWAL(ctx, s, own.announced)
	if err != nil {
		return nil, err
	}
	own.withdraw = withdraw
	// Without the session, the key that replaces this one will have to do.
	own.session, own.done, _ = b.loginToIAM(ctx, stored)
	return own, nil
}

// delete deletes the key after present has taken its place, or says why that is
// left to the rollback.
func (o *ownKey) delete(ctx context.Context, present *config) (left error) {
	if o == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	defer func() {
		if left != nil {
			o.unsettled.Store(true)
		}
	}()
	if o.session == nil {
		if o.session, o.done, left = o.loginToIAM(ctx, present); left != nil {
			return left
		}
	}
	if left = settle(ctx, o.session, present, o.announced); left != nil {
		return left
	}
	o.withdraw(ctx)
	return nil
}
