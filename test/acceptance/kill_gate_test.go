// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
)

// fate is what becomes of the request whose sender is killed.
type fate string

const (
	// lost requests have no effect.
	lost fate = "is lost"
	// late requests have their effect when another server has taken over.
	late fate = "takes effect late"
	// unanswered requests have their effect, and nobody gets the response.
	unanswered fate = "is not answered"
	// delivered responses reach the sender, which is killed while it acts on them.
	delivered fate = "is answered"
)

// moment is a point of a rotation at which a server is killed.
type moment struct {
	step step
	fate fate
	// status is what IBM answers to an unanswered or delivered request.
	status int
}

func (m moment) String() string { return fmt.Sprintf("%s (%s)", m.step, m.fate) }

// killGate stands between plugins and IBM and holds up the request of a moment until
// its sender is killed.
type killGate struct {
	ibm http.Handler

	mu    sync.Mutex
	armed *armedMoment
}

// armedMoment is a moment that has not come or whose kill is under way. The gate closes
// reached, and the test the others: when the sender is killed, and when it is replaced.
type armedMoment struct {
	moment
	reached, killed, replaced chan struct{}
}

// arm has the next request of that moment held up.
func (g *killGate) arm(m moment) *armedMoment {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = &armedMoment{moment: m, reached: make(chan struct{}), killed: make(chan struct{}), replaced: make(chan struct{})}
	return g.armed
}

// disarm has a moment that never came come no more.
func (g *killGate) disarm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = nil
}

// take returns the armed moment, once, if it has come.
func (g *killGate) take(hasCome func(moment) bool) *armedMoment {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.armed == nil || !hasCome(g.armed.moment) {
		return nil
	}
	taken := g.armed
	g.armed = nil
	close(taken.reached)
	return taken
}

func (g *killGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := ibmStep(r)
	if now := g.take(func(m moment) bool { return m.step == at && (m.fate == lost || m.fate == late) }); now != nil {
		g.withhold(now, r)
		return
	}
	// Held back, so that its sender can be killed before it gets it.
	answer := httptest.NewRecorder()
	g.ibm.ServeHTTP(answer, r)
	if now := g.take(func(m moment) bool { return m.step == at && m.fate == unanswered && m.status == answer.Code }); now != nil {
		<-now.killed
		return
	}
	deliver(w, answer)
	g.take(func(m moment) bool { return m.step == at && m.fate == delivered && m.status == answer.Code })
}

// withhold keeps a request from IBM, for good or until its sender is replaced.
func (g *killGate) withhold(now *armedMoment, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	<-now.killed
	if now.fate == lost || err != nil {
		return
	}
	<-now.replaced
	r = r.WithContext(context.WithoutCancel(r.Context()))
	r.Body = io.NopCloser(bytes.NewReader(body))
	g.ibm.ServeHTTP(httptest.NewRecorder(), r)
}

// deliver sends an answer whole, so that nothing of it waits for the handler's end.
func deliver(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), answer.Header())
	w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
	_ = http.NewResponseController(w).Flush()
}
