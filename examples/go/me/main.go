// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command me asks API Connect who it is, again and again, with the token that
// Vault shares.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/hashicorp/vault/api"
)

const path = "apic/token/us-south"

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx)
	if errors.Is(err, context.Canceled) {
		return
	}
	var refused *api.ResponseError
	if errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden {
		log.Printf("does the policy of this Vault token grant read on %s?", path)
	}
	log.Fatal(err)
}

// run calls API Connect until ctx ends or a call fails.
func run(ctx context.Context) error {
	// Vault's address and the token for it are in VAULT_ADDR and VAULT_TOKEN.
	vault, err := api.NewClient(nil)
	if err != nil {
		return err
	}
	source := &tokenSource{vault: vault, path: path}
	client := &http.Client{Timeout: 30 * time.Second}
	for {
		t, err := source.Token(ctx)
		if err != nil {
			return err
		}
		status, err := me(ctx, client, t)
		if err != nil {
			return err
		}
		fmt.Printf("%s/api/me answers %d to token %s\n", t.APIURL, status, t.ID)
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func me(ctx context.Context, client *http.Client, t token) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.APIURL+"/api/me", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+t.Value)
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	// Only a body that was read to its end gives its connection back.
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
