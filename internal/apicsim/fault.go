// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apicsim

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// FaultKind names a way to misbehave.
type FaultKind string

// The faults. Bodies that stand for an error echo the key, as a careless service
// might.
const (
	// KindStatus answers with Fault.Status and, if set, Fault.RetryAfter.
	KindStatus FaultKind = "status"
	// KindReset resets the connection instead of answering.
	KindReset FaultKind = "reset"
	// KindResetMidBody resets the connection in the middle of the answer's body.
	KindResetMidBody FaultKind = "reset_mid_body"
	// KindHang does not answer until the client gives up or the fault is replaced.
	KindHang FaultKind = "hang"
	// KindRedirect answers 307 with Fault.RedirectTo, or another path of this host.
	KindRedirect FaultKind = "redirect"
	// KindEndlessBody answers a body that never ends.
	KindEndlessBody FaultKind = "endless_body"
	// KindTrickle answers a byte a second.
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
	// KindJWTNotString answers a number for a token.
	KindJWTNotString FaultKind = "jwt_not_string"
	// KindNotJWT answers a plain word for a token.
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
	// KindExpFloat signs an exp with a fraction.
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

// Fault says how the token endpoints misbehave. The API manager never does.
type Fault struct {
	// Kind may be empty: then the answer is right, after Latency.
	Kind FaultKind `json:"kind"`
	// Times is how many exchanges are hit; 0 is all until the fault is replaced.
	Times int `json:"times"`
	// Status is KindStatus's HTTP status.
	Status int `json:"status"`
	// RetryAfter is the value of KindStatus's Retry-After header, if any.
	RetryAfter string `json:"retry_after"`
	// Latency passes before anything else happens, in nanoseconds in JSON.
	Latency time.Duration `json:"latency"`
	// RedirectTo is KindRedirect's Location.
	RedirectTo string `json:"redirect_to"`
	// ExpiresIn is the JSON that KindExpiresIn puts in the place of a number.
	ExpiresIn string `json:"expires_in"`
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

// nextFault returns the fault that hits this exchange, or nil.
func (s *Sim) nextFault() *activeFault {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault
	if f == nil || f.Times == 0 {
		return f
	}
	if f.left == 0 {
		return nil
	}
	f.left--
	return f
}

// act lets a fault hit an exchange. rightly is what it takes the place of.
func (s *Sim) act(f *activeFault, e endpoint, key string, rightly func(http.ResponseWriter), w http.ResponseWriter, r *http.Request) {
	if f.Latency > 0 && !f.sleep(r, f.Latency) {
		return
	}
	if f.Kind == "" {
		rightly(w)
		return
	}
	s.logger.Info("fault", "kind", f.Kind)
	s.misbehave(f, e, key, rightly, w, r)
}

// sleep returns false if the client gave up meanwhile.
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
		s.answer(w, r, f.Status, map[string]any{"errorCode": key, "message": []string{key}, "status": key, "context": map[string]any{"requestId": key}})
	case KindReset:
		reset(w, "")
	case KindResetMidBody:
		reset(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"jwt\":")
	case KindHang:
		select {
		case <-f.end:
		case <-r.Context().Done():
		}
	case KindRedirect:
		target := f.RedirectTo
		if target == "" {
			target = "/elsewhere"
		}
		w.Header().Set("Location", target+"?apikey="+key)
		w.WriteHeader(http.StatusTemporaryRedirect)
	case KindEndlessBody:
		endless(w)
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
	case KindGzipBroken:
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "this is not compressed, "+key)
	case KindNotJSON:
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<html><title>Gateway</title>%s</html>", key)
	case KindEmptyBody:
		w.WriteHeader(http.StatusOK)
	case KindNoJWT:
		fmt.Fprintf(w, `{"message":"welcome %s"}`, key)
	case KindErrorBody:
		fmt.Fprintf(w, `{"errorCode":"BXNIM0415E","status":401,"message":[%q],"errors":[%q]}`, key, key)
	case KindJWTNotString:
		fmt.Fprintf(w, `{%q:{"value":%q}}`, e.field, key)
	case KindNotJWT:
		fmt.Fprintf(w, `{%q:%q}`, e.field, key)
	case KindInvalidUTF8:
		fmt.Fprintf(w, "{%q:\"ey\xff\xfe.\xc3\x28.x\"}", e.field)
	case KindDuplicateJWT:
		fmt.Fprintf(w, `{%q:%q,%q:%q}`, e.field, s.signWrongly(f.Kind, e, key), e.field, s.signWrongly(f.Kind, e, key))
	case KindTokenType:
		fmt.Fprintf(w, `{%q:%q,"token_type":"MAC"}`, e.field, s.signWrongly(f.Kind, e, key))
	case KindExpiresIn:
		fmt.Fprintf(w, `{%q:%q,"token_type":"Bearer","expires_in":%s}`, e.field, s.signWrongly(f.Kind, e, key), f.ExpiresIn)
	default:
		fmt.Fprintf(w, `{%q:%q}`, e.field, s.signWrongly(f.Kind, e, key))
	}
}

// signWrongly signs a token whose claims are what kind says.
func (s *Sim) signWrongly(kind FaultKind, e endpoint, key string) string {
	claims := s.newClaims(key)
	switch kind {
	case KindNoExp, KindExpiresIn:
		delete(claims, "exp")
	case KindExpired:
		claims["exp"] = time.Now().Add(-time.Minute).Unix()
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
// sees a reset and no orderly end.
func reset(w http.ResponseWriter, raw string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, raw)
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

func endless(w http.ResponseWriter) {
	chunk := bytes.Repeat([]byte(" "), 4096)
	for {
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
		select {
		case <-f.end:
			return
		default:
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
