// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// maxAnswerBytes is the most that is read of an answer, after decompression,
// and of its header. It is sixteen times the size of the largest token seen.
const maxAnswerBytes = 64 << 10

var (
	errAnswerTooLarge = errors.New("answer too large")
	errSwitched       = errors.New("switched to another protocol")
)

// Answer is a service's whole reply.
type Answer struct {
	Status int
	Body   []byte
	// Asked is when the call began that it answers.
	Asked  time.Time
	header http.Header
	sent   *call
}

// ClockSkew is how far this host's clock is ahead of the one that dated the
// answer, negative if it is behind; 0 if the answer has no date (RFC 9110, section
// 6.6.1).
func (a *Answer) ClockSkew() time.Duration {
	dated, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return 0
	}
	return time.Now().Truncate(time.Second).Sub(dated) // A date has whole seconds.
}

// Decode decodes a 2xx answer's JSON, or returns what is wrong with it, which
// completes the sentence "the service ...". whose says what was expected, such as
// "a token's". The decoder's own error is dropped because it may quote the answer.
func Decode(body []byte, into any, whose string) (reason string) {
	if !json.Valid(body) {
		return "answered something that is not JSON"
	}
	if err := json.Unmarshal(body, into); err != nil {
		return "answered JSON of another shape than " + whose
	}
	return ""
}

// wholeAnswers reads an answer's body inside the round trip, so that one which
// breaks off or never ends counts as a failed attempt, and one that is larger
// than maxAnswerBytes is never held.
type wholeAnswers struct{ http.RoundTripper }

func (t wholeAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, errSwitched // The connection would be ours, and no timeout would end a read.
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxAnswerBytes {
		return nil, errAnswerTooLarge
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}
