// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"runtime"
	"testing"
)

func TestLeaveProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, c := range []struct {
		present int
		env     string
		want    int
	}{
		{1, "", 1},
		{2, "", 1},
		{3, "", 1},
		{8, "", 4},
		{8, "8", 8},
	} {
		t.Setenv("GOMAXPROCS", c.env)
		runtime.GOMAXPROCS(c.present)
		leaveProcessors()
		if got := runtime.GOMAXPROCS(0); got != c.want {
			t.Errorf("of %d processors, with GOMAXPROCS=%q, it takes %d, want %d", c.present, c.env, got, c.want)
		}
	}
}
