// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"errors"
	"fmt"
	"slices"
)

// faultJSON is a Fault whose latency is text: of two fields with one name, JSON
// takes the less deeply embedded.
type faultJSON struct {
	Fault
	Latency string `json:"latency"`
}

// fault says what is wrong with a fault that came from another process.
func (read faultJSON) fault() (Fault, error) {
	f := read.Fault
	if err := readDuration("latency", read.Latency, &f.Latency); err != nil {
		return Fault{}, err
	}
	return f, f.check()
}

func (f Fault) check() error {
	if f.Service != "" && !slices.Contains([]string{"login", "iam", "platform"}, f.Service) {
		return fmt.Errorf("there is no token service %q", f.Service)
	}
	if f.Kind != "" && !slices.Contains(kinds(), f.Kind) {
		return fmt.Errorf("there is no fault of kind %q", f.Kind)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return errors.New("status must be from 200 to 599")
	}
	if f.Times < 0 {
		return errors.New("times must not be negative")
	}
	return nil
}
