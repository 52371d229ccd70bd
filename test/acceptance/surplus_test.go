// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// surplusService is the simulation behind a gateway that sends more than was asked
// for: what it answers again, with what it was asked.
type surplusService struct {
	sim http.Handler
	url string
	// twice sends the surplus as another answer; else it goes beyond the
	// Content-Length.
	twice bool

	mu sync.Mutex
	// secrets are the keys and tokens that it sent.
	secrets []string
	agents  map[string]bool
}

func newSurplusService(t *testing.T, sim http.Handler, twice bool) *surplusService {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	g := &surplusService{sim: sim, url: "http://" + listener.Addr().String(), twice: twice, agents: map[string]bool{}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go g.serve(conn)
		}
	}()
	return g
}

func (g *surplusService) serve(conn net.Conn) {
	defer conn.Close()
	requests := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(requests)
		if err != nil {
			return
		}
		// An answer's surplus may be taken for the next one's, and a key whose creation
		// has no outcome holds up all further rotations. The next request after the
		// details is the creation.
		answer, surplus := g.answer(r)
		if r.URL.Path == "/v1/apikeys/details" {
			surplus = ""
		}
		if _, err := conn.Write([]byte(answer + surplus)); err != nil {
			return
		}
	}
}

func (g *surplusService) answer(r *http.Request) (answer, surplus string) {
	asked := fmt.Sprintf("%s %s %s", r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("IAM-ApiKey"))
	recorded := httptest.NewRecorder()
	g.sim.ServeHTTP(recorded, r)
	body := recorded.Body.String()
	g.note(r.UserAgent(), body)
	surplus = asked + " " + body
	if g.twice {
		surplus = httpAnswer(http.StatusOK, surplus)
	}
	return httpAnswer(recorded.Code, body), surplus
}

func httpAnswer(status int, body string) string {
	if status == http.StatusNoContent {
		return "HTTP/1.1 204 No Content\r\n\r\n"
	}
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), len(body), body)
}

// note keeps what is secret in an answer.
func (g *surplusService) note(agent, body string) {
	var answered struct {
		JWT         string `json:"jwt"`
		AccessToken string `json:"access_token"`
		APIKey      string `json:"apikey"`
	}
	_ = json.Unmarshal([]byte(body), &answered)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.agents[agent] = true
	for _, secret := range []string{answered.JWT, answered.AccessToken, answered.APIKey} {
		if secret != "" {
			g.secrets = append(g.secrets, secret)
		}
	}
}

// persist tries again what a surplus answer may have thwarted.
func (s *stack) persist(what string, try func() error) {
	s.Helper()
	var err error
	s.eventually(what, func() bool {
		err = try()
		return err == nil
	})
}

// TestServerLog_holdsNothingOfSurplusAnswers has net/http, and with GODEBUG and
// grpc's variables other parts of the plugin, say all that they can say about what
// went over their connections.
func TestServerLog_holdsNothingOfSurplusAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		twice bool
		env   []string
	}{
		"two answers to a request":    {twice: true},
		"more than a Content-Length":  {},
		"with everything that traces": {true, []string{"GODEBUG=http2debug=2,netdns=2", "GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_GO_LOG_VERBOSITY_LEVEL=99"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newUnmountedStack(t, inMemory, pluginBinary)
			s.pluginEnv = c.env
			s.mount()
			g := newSurplusService(t, s.sim, c.twice)
			for _, service := range []string{"iam", "login"} {
				data := s.serviceData(service, g.url, map[string]any{"iam_url": g.url, "max_retries": 2})
				s.persist("the config is written", func() error { return s.tryWrite("apic/config/"+service, data) })
				for range 5 {
					s.readToken(service)
					s.persist("a token is issued", func() error { return s.tryWrite("apic/token/"+service, nil) })
				}
			}
			// A key that two configs hold is not rotated.
			_, err := s.client.Logical().Delete("apic/config/iam")
			s.check(err)
			s.persist("the key is rotated", func() error {
				_, err := s.rotate("login")
				return err
			})
			g.requireUnsaid(s)
		})
	}
}

func (g *surplusService) requireUnsaid(s *stack) {
	s.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.secrets) < 10 {
		s.Errorf("the service sent %d secrets only", len(g.secrets))
	}
	if want := pluginName + "/" + pluginVersion; len(g.agents) != 1 || !g.agents[want] {
		s.Errorf("requests came from %v, want %s", g.agents, want)
	}
	log := s.fileContent("vault.log")
	if !strings.Contains(log, "api key rotated") {
		s.Error("the server's log misses what the plugin says")
	}
	s.requireNowhere("the server's log", log, g.secrets...)
}
