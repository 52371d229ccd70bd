// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

const (
	// deletionWait is how long a deletion waits for a step of a rotation to end, which takes
	// half a minute while the issuer does not answer. With burialTime it ends before the 60 s
	// after which Vault's client gives up.
	deletionWait = 35 * time.Second

	// burialTime is how long a deletion stays with the keys that it is to delete at
	// their issuer. What is left goes on in the background.
	burialTime = 20 * time.Second
)

// deletion is what became of a config that was deleted.
type deletion struct {
	// unreadable says that nobody knows which keys it had.
	unreadable bool
	// deleted and left are ids of keys that a rotation had made.
	deleted, left []string
}

// deleteConfig deletes a config, and at their issuer the keys that nobody else knows.
// It returns nil if there is no such config.
func (b *backend) deleteConfig(ctx context.Context, name string) (*deletion, error) {
	if checkName(name) != nil {
		return nil, nil // There can be none of that name.
	}
	deleted, grave, err := b.takeAway(ctx, name)
	if err != nil || deleted == nil {
		return nil, err
	}
	b.Logger().Info("config deleted", "config", name)
	b.events.send(ctx, eventConfigDelete, name)
	if grave.Tombstone == "" {
		return deleted, nil
	}
	ctx, cancel := context.WithTimeout(ctx, burialTime)
	defer cancel()
	deleted.divide(b.rotations.bury(ctx, grave, deleted.deleted))
	return deleted, nil
}

// takeAway deletes the config from storage. What its keys need is in the tombstone.
func (b *backend) takeAway(ctx context.Context, name string) (deleted *deletion, grave rotation.Ref, err error) {
	waiting, cancel := context.WithTimeout(ctx, deletionWait)
	defer cancel()
	claim, err := b.configs.claimForDeletion(waiting, rotation.Ref{Config: name})
	var unreadable *unreadableError
	switch {
	case errors.Is(err, rotation.ErrNoRecord):
		return nil, grave, nil
	case errors.As(err, &unreadable):
		return &deletion{unreadable: true}, grave, b.configs.deleteUnreadable(ctx, name)
	case err != nil:
		return nil, grave, err
	}
	defer claim.Release()
	grave, err = claim.bury(ctx)
	if err != nil {
		return nil, grave, err
	}
	return &deletion{deleted: claim.record.ManagedIDs()}, grave, nil
}

// divide tells those that are left from the deleted ones.
func (d *deletion) divide(left []string) {
	d.left = left
	d.deleted = slices.DeleteFunc(d.deleted, func(id string) bool { return slices.Contains(left, id) })
}

// whatOfTheKeys is for the client that deleted the config.
func (d *deletion) whatOfTheKeys() string {
	if d.unreadable {
		return "What was stored could not be read. If a rotation made its key, delete that at IBM."
	}
	var told []string
	if len(d.deleted) > 0 {
		told = append(told, fmt.Sprintf("Deleted at IBM, because rotations had made them: %s.", strings.Join(d.deleted, ", ")))
	}
	if len(d.left) > 0 {
		told = append(told, fmt.Sprintf("Still to be deleted at IBM, because rotations had made them: %s. Vault goes on trying, and the server's log says why it has to.", strings.Join(d.left, ", ")))
	}
	if len(told) == 0 {
		told = append(told, "To end the key's use elsewhere, delete it at IBM too.")
	}
	return strings.Join(told, " ")
}
