// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// FaultKind names a way to misbehave.
type FaultKind string

// The faults.
const (
	// KindStatus answers Fault.Status and Fault.Body. The body that an error has without
	// one echoes the key, as a careless service might, and so does IAM's Transaction-Id
	// beside it.
	KindStatus FaultKind = "status"
	// KindReset resets the connection (TCP RST) instead of answering.
	KindReset FaultKind = "reset"
	// KindResetMidBody resets the connection in the middle of the answer's body.
	KindResetMidBody FaultKind = "reset_mid_body"
	// KindHang does not answer until the client gives up, or the fault is replaced;
	// then the answer is right.
	KindHang FaultKind = "hang"
	// KindRedirect answers 307 with Fault.RedirectTo, or another path of this host.
	KindRedirect FaultKind = "redirect"
	// KindEndlessBody answers a body that ends only when the client is gone.
	KindEndlessBody FaultKind = "endless_body"
	// KindTrickle answers a byte a second, until the client is gone or the fault is
	// replaced.
	KindTrickle FaultKind = "trickle"
	// KindGzip answers rightly, compressed.
	KindGzip FaultKind = "gzip"
)

func kinds() []FaultKind {
	return []FaultKind{KindStatus, KindReset, KindResetMidBody, KindHang, KindRedirect, KindEndlessBody, KindTrickle, KindGzip}
}

// Fault says how the token endpoints misbehave. The API manager never does, and
// the key API by faults of its own; see KeyFault.
type Fault struct {
	// Service names the one token service that is hit: login, iam or platform. Empty
	// is all of them.
	Service string `json:"service"`
	// Kind may be empty: then the answer is right, after Latency.
	Kind FaultKind `json:"kind"`
	// Times is how many exchanges are hit; 0 is all until the fault is replaced.
	Times int `json:"times"`
	// Status is KindStatus's HTTP status, 200 or above; 0 is 503.
	Status int `json:"status"`
	// RetryAfter and ContentEncoding are the values of these headers of KindStatus, if any.
	RetryAfter      string `json:"retry_after"`
	ContentEncoding string `json:"content_encoding"`
	// Body is the body of KindStatus. In it, {key} stands for the key, {field} for the
	// name of the property that should hold the token, and {token} for a right token,
	// which is not among the issued ones. Without one, an error has a body of its own.
	Body string `json:"body"`
	// Latency passes before anything else happens. It ends early when the client
	// gives up, or when the fault is replaced; then the answer is right. In JSON it
	// is a Go duration, such as "1.5s".
	Latency time.Duration `json:"latency"`
	// RedirectTo is KindRedirect's Location, to which the key is added as a query.
	RedirectTo string `json:"redirect_to"`
}

// activeFault is a fault in force. Its end is closed when it is replaced.
type activeFault struct {
	Fault
	left int
	end  chan struct{}
}

// Inject puts a fault in the place of the present one.
func (s *Sim) Inject(f Fault) {
	s.replaceFault(&activeFault{Fault: f, left: f.Times, end: make(chan struct{})})
}

// ClearFault makes the services behave again.
func (s *Sim) ClearFault() { s.replaceFault(nil) }

func (s *Sim) replaceFault(f *activeFault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		close(s.fault.end)
	}
	s.fault = f
}

// nextFault returns the fault that hits this exchange with a service, or nil.
func (s *Sim) nextFault(service string) *activeFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault
	if f == nil || f.Service != "" && f.Service != service || !f.hits() {
		return nil
	}
	return f
}

// hits says whether the fault hits once more, and counts it. The simulation's lock
// guards it.
func (f *activeFault) hits() bool {
	if f.Times == 0 {
		return true
	}
	if f.left == 0 {
		return false
	}
	f.left--
	return true
}

// act lets a fault hit an exchange. rightly is what it takes the place of.
func (s *Sim) act(f *activeFault, e endpoint, key string, rightly func(http.ResponseWriter), w http.ResponseWriter, r *http.Request) {
	if f.Latency > 0 && !f.sleep(r, f.Latency) {
		return
	}
	if f.Kind == "" || f.over() {
		rightly(w)
		return
	}
	if !slices.Contains(kinds(), f.Kind) {
		answer(w, http.StatusInternalServerError, message("the simulation knows no such fault"))
		return
	}
	callOf(r).fault = f.Kind
	s.misbehave(f, e, key, rightly, w, r)
}

// over says whether the fault has been replaced.
func (f *activeFault) over() bool {
	select {
	case <-f.end:
		return true
	default:
		return false
	}
}

// sleep returns after d, or as soon as the fault is replaced. It returns false
// if the client gave up meanwhile.
func (f *activeFault) sleep(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-f.end:
		return true
	case <-r.Context().Done():
		return false
	}
}

func (s *Sim) misbehave(f *activeFault, e endpoint, key string, rightly func(http.ResponseWriter), w http.ResponseWriter, r *http.Request) {
	switch f.Kind {
	case KindStatus:
		s.answerStatus(f, e, key, w)
	case KindReset:
		reset(w, "")
	case KindResetMidBody:
		reset(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"jwt\":")
	case KindHang:
		select {
		case <-f.end:
			rightly(w)
		case <-r.Context().Done():
		}
	case KindRedirect:
		w.Header().Set("Location", cmp.Or(f.RedirectTo, "/elsewhere")+"?apikey="+url.QueryEscape(key))
		w.WriteHeader(http.StatusTemporaryRedirect)
	case KindEndlessBody:
		endless(w, r)
	case KindTrickle:
		f.trickle(w, r)
	case KindGzip:
		compress(rightly, w)
	}
}

// spoiltError is the body of a token service's error that has the key in all of its fields.
const spoiltError = `{"errorCode":"{key}","message":["{key}"],"status":"{key}","context":{"requestId":"{key}"}}`

// answerStatus answers what the fault says.
func (s *Sim) answerStatus(f *activeFault, e endpoint, key string, w http.ResponseWriter) {
	status, body := cmp.Or(f.Status, http.StatusServiceUnavailable), f.Body
	if body == "" && status >= 400 {
		echoTransactionID(w, key)
		body = cmp.Or(e.spoiltError, spoiltError)
	}
	for name, value := range map[string]string{"Retry-After": f.RetryAfter, "Content-Encoding": f.ContentEncoding} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	token := ""
	if strings.Contains(body, "{token}") && e.signer != nil {
		// Only an empty one comes with an error.
		token, _ = e.sign(s.newClaims(e, key))
	}
	_, _ = strings.NewReplacer("{key}", key, "{field}", e.field, "{token}", token).WriteString(w, body)
}

// reset writes raw bytes, if any, and closes the connection so that the client
// sees a reset and no orderly end. Where there is no connection to take over, the
// handler is aborted, which net/http turns into the nearest that it has.
func reset(w http.ResponseWriter, raw string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(conn, raw)
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn() // TLS would take leave in order first.
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func endless(w http.ResponseWriter, r *http.Request) {
	// White space may come before any JSON, so that nothing but its length is wrong.
	chunk := bytes.Repeat([]byte(" "), 4096)
	for r.Context().Err() == nil {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func (f *activeFault) trickle(w http.ResponseWriter, r *http.Request) {
	for f.sleep(r, time.Second) {
		_, err := io.WriteString(w, " ")
		if err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
		if f.over() {
			return
		}
	}
}

// compress answers rightly, with the body compressed whether or not the client
// offered to take it so.
func compress(rightly func(http.ResponseWriter), w http.ResponseWriter) {
	w.Header().Set("Content-Encoding", "gzip")
	zipped := gzip.NewWriter(w)
	defer zipped.Close()
	rightly(compressedWriter{w, zipped})
}

type compressedWriter struct {
	http.ResponseWriter
	body io.Writer
}

func (c compressedWriter) Write(p []byte) (int, error) { return c.body.Write(p) }
