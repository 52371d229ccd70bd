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

// TestRun_servesTheSecretsThatItMade also has it end when told, and print no secret.
func TestRun_servesTheSecretsThatItMade(t *testing.T) {
	dir := t.TempDir()
	keyPath, secondKeyPath := filepath.Join(dir, "apikey.json"), filepath.Join(dir, "second.json")
	singleUsePath := filepath.Join(dir, "saas.json")
	credentialsPath, ready := filepath.Join(dir, "credentials.json"), filepath.Join(dir, "url")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	printed, stdout := io.Pipe()
	var stderr bytes.Buffer
	go func() {
		err := run(ctx, []string{"-apikey-file", keyPath, "-apikey-file", secondKeyPath, "-single-use-file", singleUsePath, "-credentials-file", credentialsPath, "-ready-file", ready}, stdout, &stderr)
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
	if status := exchange(t, base, key); status != http.StatusOK {
		t.Errorf("the key's exchange has status %d", status)
	}
	secondKey, err := readOrMakeKey(secondKeyPath)
	if err != nil {
		t.Fatal(err)
	}
	if status := exchange(t, base, secondKey); status != http.StatusOK || secondKey == key {
		t.Errorf("the second key's exchange has status %d", status)
	}
	if status := exchange(t, base, "another"); status != http.StatusUnauthorized {
		t.Errorf("another key's exchange has status %d", status)
	}
	made, err := readOrMakeCredentials(credentialsPath)
	if err != nil {
		t.Fatal(err)
	}
	if status := exchangeAtPlatform(t, base, key, made); status != http.StatusOK {
		t.Errorf("the key and the client credentials got status %d", status)
	}
	if status := exchangeAtPlatform(t, base, key, credentialsFile{}); status != http.StatusUnauthorized {
		t.Errorf("the key without client credentials got status %d", status)
	}
	singleUse := requireSingleUse(t, base, singleUsePath, made)
	requireCounts(t, base, 7)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	printedAll := line + stderr.String()
	if strings.Contains(printedAll, key) || strings.Contains(printedAll, secondKey) || strings.Contains(printedAll, singleUse) || strings.Contains(printedAll, made.Toolkit.ClientSecret) {
		t.Error("a secret was printed")
	}
	for _, path := range []string{keyPath, secondKeyPath, singleUsePath, credentialsPath} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(path), info.Mode())
		}
	}
}

// requireSingleUse returns the key of a file, which is used up.
func requireSingleUse(t *testing.T, base, path string, client credentialsFile) string {
	t.Helper()
	key, err := readOrMakeKey(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{http.StatusOK, http.StatusUnauthorized} {
		if status := exchangeAtPlatform(t, base, key, client); status != want {
			t.Errorf("the exchange of the key that works once has status %d", status)
		}
	}
	return key
}

func readURL(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(content))
}

func exchange(t *testing.T, base, key string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/apikey?apikey="+url.QueryEscape(key), nil)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, req, "application/x-www-form-urlencoded")
}

func exchangeAtPlatform(t *testing.T, base, key string, client credentialsFile) int {
	t.Helper()
	body, err := json.Marshal(map[string]string{
		"grant_type": "api_key", "api_key": key,
		"client_id": client.Toolkit.ClientID, "client_secret": client.Toolkit.ClientSecret,
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/api/token", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return send(t, req, "application/json")
}

func send(t *testing.T, req *http.Request, contentType string) int {
	t.Helper()
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", contentType)
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

func TestRun_refusesWhatItCannotServe(t *testing.T) {
	dir := t.TempDir()
	empty, key, credentials := filepath.Join(dir, "empty.json"), filepath.Join(dir, "apikey.json"), filepath.Join(dir, "credentials.json")
	if err := os.WriteFile(empty, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"an address on the network":                   {"-listen", "0.0.0.0:0"},
		"an address without a port":                   {"-listen", "127.0.0.1"},
		"a key file without a key":                    {"-apikey-file", empty},
		"a single-use file without a key":             {"-single-use-file", empty},
		"a credentials file without credentials":      {"-credentials-file", empty},
		"a credentials file that cannot be made":      {"-credentials-file", filepath.Join(dir, "missing", "credentials.json")},
		"a flag that does not exist":                  {"-unknown"},
		"an argument":                                 {"serve"},
		"tokens without a life":                       {"-token-ttl", "0"},
		"a ready file in a directory that is missing": {"-ready-file", filepath.Join(dir, "missing", "url")},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(context.Background())
			cancel(errors.New("must not be waited for"))
			args := append([]string{"-apikey-file", key, "-credentials-file", credentials}, args...)
			if err := run(ctx, args, io.Discard, io.Discard); err == nil {
				t.Fatal("the command ran")
			}
		})
	}
}
