// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

func TestSoak_judge(t *testing.T) {
	sim, err := apicsim.New(apicsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change  func(*soak)
		wantErr string
	}{
		"flat": {func(*soak) {}, ""},
		"growing": {
			func(k *soak) {
				for i := range k.samples {
					k.samples[i].openFiles = int64(10 * i)
				}
			},
			"soak: 1 of 5 measures grow, 0 requests failed",
		},
		"a failing read": {
			func(k *soak) { k.count(&k.reads, "read", errors.New("refused")) },
			"soak: 0 of 5 measures grow, 1 requests failed",
		},
		"no samples": {
			func(k *soak) { k.samples = nil },
			"0 samples of the plugin's process are too few to judge by",
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := &soak{bench: &bench{sim: sim, configs: 300}, duration: time.Minute, samples: make([]usage, 60)}
			c.change(k)
			got := ""
			if err := k.judge(io.Discard); err != nil {
				got = err.Error()
			}
			if got != c.wantErr {
				t.Errorf("the verdict is %q", got)
			}
		})
	}
}

func TestRequireLiving(t *testing.T) {
	for expires, want := range map[any]string{
		time.Now().Add(time.Hour).Format(time.RFC3339):  "",
		time.Now().Add(-time.Hour).Format(time.RFC3339): "the token ended 1h0m",
		nil: "the token has no expires_at",
	} {
		got := ""
		if err := requireLiving(map[string]any{"expires_at": expires}); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) || (want == "") != (got == "") {
			t.Errorf("a token that expires at %v: %q", expires, got)
		}
	}
}
