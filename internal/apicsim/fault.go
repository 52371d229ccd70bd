// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/tls"
	"fmt"
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

// The faults. Bodies that stand for an error echo the key, as a careless service
// might, and so does IAM's Transaction-Id beside them. A token that a fault signs is
// not among the issued ones.
const (
	// KindStatus answers with Fault.Status and, if set, Fault.RetryAfter.
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
	// KindGzipBroken claims compression and answers something else.
	KindGzipBroken FaultKind = "gzip_broken"
	// KindNotJSON answers a gateway's HTML with status 200.
	KindNotJSON FaultKind = "not_json"
	// KindEmptyBody answers 200 and nothing.
	KindEmptyBody FaultKind = "empty_body"
	// KindNoJWT answers JSON without a token.
	KindNoJWT FaultKind = "no_jwt"
	// KindJWTNotString answers an object for a token.
	KindJWTNotString FaultKind = "jwt_not_string"
	// KindNotJWT answers a plain word for a token: the key.
	KindNotJWT FaultKind = "not_jwt"
	// KindDuplicateJWT answers two right tokens in one object.
	KindDuplicateJWT FaultKind = "duplicate_jwt"
	// KindInvalidUTF8 answers a token with bytes that are no UTF-8.
	KindInvalidUTF8 FaultKind = "invalid_utf8"
	// KindNoExp signs a token without exp.
	KindNoExp FaultKind = "no_exp"
	// KindExpired signs a token that expired a minute ago.
	KindExpired FaultKind = "expired"
	// KindExpString signs an exp that is a string.
	KindExpString FaultKind = "exp_string"
	// KindExpFloat signs an exp with a fraction, which RFC 7519 allows.
	KindExpFloat FaultKind = "exp_float"
	// KindExpFar signs an exp in the year 9999.
	KindExpFar FaultKind = "exp_far"
	// KindNoJTI signs a token without jti.
	KindNoJTI FaultKind = "no_jti"
	// KindJTIEcho signs the API key as jti.
	KindJTIEcho FaultKind = "jti_echo"
	// KindLargeToken signs a token of about 60 KiB.
	KindLargeToken FaultKind = "large_token"
	// KindErrorBody answers 200 with the body of an error.
	KindErrorBody FaultKind = "error_body"
	// KindTokenType answers a right token of another type than Bearer.
	KindTokenType FaultKind = "token_type"
	// KindExpiresIn signs a token without exp and answers Fault.ExpiresIn.
	KindExpiresIn FaultKind = "expires_in"
	// KindHugeToken signs a token of about 200 KiB.
	KindHugeToken FaultKind = "huge_token"
)

func kinds() []FaultKind {
	return []FaultKind{
		KindStatus, KindReset, KindResetMidBody, KindHang, KindRedirect, KindEndlessBody, KindTrickle, KindGzip,
		KindGzipBroken, KindNotJSON, KindEmptyBody, KindNoJWT, KindJWTNotString, KindNotJWT, KindDuplicateJWT,
		KindInvalidUTF8, KindNoExp, KindExpired, KindExpString, KindExpFloat, KindExpFar, KindNoJTI, KindJTIEcho,
		KindLargeToken, KindErrorBody, KindTokenType, KindExpiresIn, KindHugeToken,
	}
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
	// Status is KindStatus's HTTP status, a 4xx or 5xx; 0 is 503.
	Status int `json:"status"`
	// RetryAfter is the value of KindStatus's Retry-After header, if any.
	RetryAfter string `json:"retry_after"`
	// Latency passes before anything else happens. It ends early when the client
	// gives up, or when the fault is replaced; then the answer is right. In JSON it
	// is a Go duration, such as "1.5s".
	Latency time.Duration `json:"latency"`
	// RedirectTo is KindRedirect's Location, to which the key is added as a query.
	RedirectTo string `json:"redirect_to"`
	// ExpiresIn is the JSON that KindExpiresIn puts in the place of a number.
	ExpiresIn string `json:"expires_in"`
	// Body, if set, is the body of KindStatus, and of the kinds that spoil nothing
	// but the body: KindGzipBroken, KindNotJSON, KindNoJWT, KindErrorBody,
	// KindJWTNotString, KindNotJWT and KindInvalidUTF8.
	Body string `json:"body"`
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
		if f.RetryAfter != "" {
			w.Header().Set("Retry-After", f.RetryAfter)
		}
		if f.Body == "" {
			echoTransactionID(w, key)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(cmp.Or(f.Status, http.StatusServiceUnavailable))
		_, _ = io.WriteString(w, cmp.Or(f.Body, fmt.Sprintf(`{"errorCode":%[1]q,"message":[%[1]q],"status":%[1]q,"context":{"requestId":%[1]q}}`, key)))
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
	default:
		s.answerWrongly(f, e, key, w)
	}
}

// answerWrongly answers 200 with a body that is not what it should be.
func (s *Sim) answerWrongly(f *activeFault, e endpoint, key string, w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	switch f.Kind {
	case KindNotJSON:
		w.Header().Set("Content-Type", "text/html")
	case KindGzipBroken:
		w.Header().Set("Content-Encoding", "gzip")
	}
	body, spoilt := spoiltBody(f.Kind, e.field, key)
	switch {
	case spoilt:
		body = cmp.Or(f.Body, body)
	case f.Kind != KindEmptyBody:
		body = s.wrongGrant(f, e, key)
	}
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, body)
}

// spoiltBody is the body of the kinds that spoil nothing but the body. It is
// false for all others.
func spoiltBody(kind FaultKind, field, key string) (string, bool) {
	switch kind {
	case KindGzipBroken:
		return "this is not compressed, " + key, true
	case KindNotJSON:
		return "<html><title>Gateway</title>" + key + "</html>", true
	case KindNoJWT:
		return fmt.Sprintf(`{"message":%q}`, "welcome "+key), true
	case KindErrorBody:
		return fmt.Sprintf(`{"errorCode":"BXNIM0415E","status":401,"message":[%q],"errors":[%q]}`, key, key), true
	case KindJWTNotString:
		return fmt.Sprintf(`{%q:{"value":%q}}`, field, key), true
	case KindNotJWT:
		return fmt.Sprintf(`{%q:%q}`, field, key), true
	case KindInvalidUTF8:
		return fmt.Sprintf("{%q:\"ey\xff\xfe.\xc3\x28.x\"}", field), true
	default:
		return "", false
	}
}

// wrongGrant is a body with a signed token in it, with something wrong about one
// or the other.
func (s *Sim) wrongGrant(f *activeFault, e endpoint, key string) string {
	token := s.signWrongly(f.Kind, e, key)
	switch f.Kind {
	case KindDuplicateJWT:
		return fmt.Sprintf(`{%q:%q,%q:%q}`, e.field, token, e.field, s.signWrongly(f.Kind, e, key))
	case KindTokenType:
		return fmt.Sprintf(`{%q:%q,"token_type":"MAC"}`, e.field, token)
	case KindExpiresIn:
		return fmt.Sprintf(`{%q:%q,"token_type":"Bearer","expires_in":%s}`, e.field, token, f.ExpiresIn)
	default:
		return fmt.Sprintf(`{%q:%q}`, e.field, token)
	}
}

// signWrongly signs a token whose claims are what kind says.
func (s *Sim) signWrongly(kind FaultKind, e endpoint, key string) string {
	claims := s.newClaims(e, key)
	switch kind {
	case KindNoExp, KindExpiresIn:
		delete(claims, "exp")
	case KindExpired:
		claims["exp"] = s.now().Add(-time.Minute).Unix()
	case KindExpString:
		claims["exp"] = fmt.Sprint(claims["exp"])
	case KindExpFloat:
		claims["exp"] = float64(claims["exp"].(int64)) + 0.5
	case KindExpFar:
		claims["exp"] = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	case KindNoJTI:
		delete(claims, "jti")
	case KindJTIEcho:
		claims["jti"] = key
	case KindLargeToken:
		claims["padding"] = strings.Repeat("p", 45_000)
	case KindHugeToken:
		claims["padding"] = strings.Repeat("p", 150_000)
	}
	token, err := e.sign(claims)
	if err != nil {
		return ""
	}
	return token
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
