// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheCommandServesTheKeyThatItMadeAndEndsWhenTold(t *testing.T) {
	dir := t.TempDir()
	keyPath, ready := filepath.Join(dir, "apikey.json"), filepath.Join(dir, "url")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	printed, stdout := io.Pipe()
	var stderr bytes.Buffer
	go func() {
		err := run(ctx, []string{"-apikey-file", keyPath, "-ready-file", ready}, stdout, &stderr)
		stdout.CloseWithError(err)
		ended <- err
	}()
	line, err := bufio.NewReader(printed).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	base := readURL(t, ready)
	if line != "apic-sim is listening on "+base+"\n" {
		t.Errorf("the ready file says %q", base)
	}

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
	requireCounts(t, base, 2)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if strings.Contains(line+stderr.String(), key) {
		t.Error("the key was printed")
	}
	if info, err := os.Stat(keyPath); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %v, error %v", info.Mode(), err)
	}
}

func readURL(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
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

func requireCounts(t *testing.T, base string, exchanges int) {
	t.Helper()
	resp, err := http.Get(base + "/_sim/counts")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var counts struct{ Exchanges int }
	if err := json.NewDecoder(resp.Body).Decode(&counts); err != nil || counts.Exchanges != exchanges {
		t.Errorf("%d exchanges were counted, error %v", counts.Exchanges, err)
	}
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
		"an argument":                  {"serve"},
		"tokens without a life":        {"-token-ttl", "0"},
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
