// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
)

// TestChart_isWellFormed has every bar, line and point of it within the picture.
func TestChart_isWellFormed(t *testing.T) {
	drawn, err := exampleReport().chart()
	if err != nil {
		t.Fatal(err)
	}
	elements := make(map[string]int)
	for decoder := xml.NewDecoder(bytes.NewReader(drawn)); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if element, ok := token.(xml.StartElement); ok {
			elements[element.Name.Local]++
			requireWithin(t, element)
		}
	}
	// Five ways with 1 and with 32 readers.
	if elements["circle"] != 2*10 || elements["desc"] != 1 || elements["title"] != 1+10 {
		t.Errorf("the chart has %v", elements)
	}
	for _, want := range []string{wayFloor, "1111 (1.11×)", "raft storage, 32 readers: floor plugin 1000 reads/s, p50 1.00 ms", "prefers-color-scheme: dark"} {
		if !strings.Contains(string(drawn), want) {
			t.Errorf("the chart does not say %q", want)
		}
	}
}

func requireWithin(t *testing.T, element xml.StartElement) {
	t.Helper()
	for _, attribute := range element.Attr {
		switch attribute.Name.Local {
		case "x", "x1", "x2", "cx":
			if x, err := strconv.ParseFloat(attribute.Value, 64); err != nil || x < 0 || x > chartWidth {
				t.Errorf("%s has %s=%q", element.Name.Local, attribute.Name.Local, attribute.Value)
			}
		}
	}
}

func TestLogAxis(t *testing.T) {
	axis := axisFor([]panelFigures{{rows: []figures{{p50: 0.0004, p99: 0.002}, {p50: 0.02, p99: 0.12}}}})
	var texts []string
	for _, tick := range axis.ticks() {
		texts = append(texts, tick.Text)
	}
	if got := strings.Join(texts, ", "); got != "0.1 ms, 1 ms, 10 ms, 100 ms, 1000 ms" {
		t.Errorf("the ticks are %s", got)
	}
	if left, right := axis.place(0.0001), axis.place(1); math.Abs(left-latencyLeft) > 0.01 || math.Abs(right-latencyLeft-latencyWidth) > 0.01 {
		t.Errorf("the axis goes from %g to %g", left, right)
	}
}
