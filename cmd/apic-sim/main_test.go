// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheCommandServesTheKeyThatItMadeAndEndsWhenTold(t *testing.T) {
	dir := t.TempDir()
	keyPath, ready := filepath.Join(dir, "apikey.json"), filepath.Join(dir, "url")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var stdout, stderr bytes.Buffer
	go func() { ended <- run(ctx, []string{"-apikey-file", keyPath, "-ready-file", ready}, &stdout, &stderr) }()
	base := waitForURL(t, ready)

	key, err := readOrMakeKey(keyPath)
	if err != nil {
		t.Fatal(err)
	}
	if status := buy(t, base, key); status != http.StatusOK {
		t.Errorf("the key bought status %d", status)
	}
	if status := buy(t, base, "another"); status != http.StatusUnauthorized {
		t.Errorf("another key bought status %d", status)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if strings.Contains(stdout.String()+stderr.String(), key) {
		t.Error("the key was printed")
	}
	if info, err := os.Stat(keyPath); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %v, error %v", info.Mode(), err)
	}
}

func waitForURL(t *testing.T, path string) string {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		content, err := os.ReadFile(path)
		if err == nil {
			return strings.TrimSpace(string(content))
		}
		select {
		case <-deadline:
			t.Fatal("the command did not get ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func buy(t *testing.T, base, key string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/apikey?apikey="+url.QueryEscape(key), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestTheCommandRefusesWhatItCannotServe(t *testing.T) {
	notAKey := filepath.Join(t.TempDir(), "apikey.json")
	if err := os.WriteFile(notAKey, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"an address on the network":    {"-listen", "0.0.0.0:0"},
		"an address without a port":    {"-listen", "127.0.0.1"},
		"a key file without a key":     {"-apikey-file", notAKey},
		"a flag that does not exist":   {"-nonsense"},
		"a ready file in no directory": {"-apikey-file", filepath.Join(t.TempDir(), "k"), "-ready-file", "/nonexistent/x/url"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(context.Background())
			cancel(errors.New("must not be waited for"))
			if err := run(ctx, args, io.Discard, io.Discard); err == nil {
				t.Fatal("the command ran")
			}
		})
	}
}
