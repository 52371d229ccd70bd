// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/pipenet"
)

const (
	testKey          = "0Kq3-canary-key-Zz9"
	testClientSecret = "0Kq3-canary-client-Zz9"
)

// mount is a backend with a storage that can fail and a simulated service.
type mount struct {
	*testing.T
	backend *backend
	storage *failingStorage
	sim     *apicsim.Sim
	server  *apicsim.Server
	// url is the simulated service's. It is reached through network, unless that is
	// nil, by the present backend's line.
	url     string
	network *pipenet.Network
	line    *pipenet.Line
	// defaults go into every config that is written.
	defaults map[string]any
	// replication is the node's role, from the next restart on.
	replication consts.ReplicationState
	// options are those of the mount; a restart makes them count.
	options map[string]string
	log     *testLog
	events  *testEvents
}

func newMount(t *testing.T) *mount {
	t.Helper()
	sim := newSimWith(t, apicsim.Options{Keys: []string{testKey}, ClientID: "client", ClientSecret: testClientSecret})
	server, err := apicsim.Start(sim)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	m := &mount{T: t, storage: &failingStorage{Storage: &logical.InmemStorage{}}, sim: sim, server: server, url: server.URL()}
	m.restart()
	return m
}

// newSim has one key, testKey.
func newSim(t *testing.T) *apicsim.Sim {
	t.Helper()
	return newSimWith(t, apicsim.Options{Keys: []string{testKey}})
}

// newSimWith signs with one key for all, and quickly.
func newSimWith(t *testing.T, o apicsim.Options) *apicsim.Sim {
	t.Helper()
	key, err := apicsim.SharedKey()
	if err != nil {
		t.Fatal(err)
	}
	o.Key = key
	sim, err := apicsim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return sim
}

// newStrangeSim is newSim, and neither accepts the others' tokens nor do they accept its own.
func newStrangeSim(t *testing.T) *apicsim.Sim {
	t.Helper()
	sim, err := apicsim.New(apicsim.Options{Keys: []string{testKey}})
	if err != nil {
		t.Fatal(err)
	}
	return sim
}

// newPipedMount is a mount for testing/synctest, without sockets. Its simulated
// services have one key, testKey.
func newPipedMount(t *testing.T, sim *apicsim.Sim, handler http.Handler) *mount {
	t.Helper()
	m := &mount{T: t, storage: &failingStorage{Storage: &logical.InmemStorage{}}, sim: sim, url: "http://127.0.0.1", network: pipenet.Serve(handler)}
	t.Cleanup(m.network.Close)
	m.restart()
	return m
}

// crash ends the backend as a kill does: whatever it still tries, it reaches
// neither storage nor network any more. Another one takes its place.
func (m *mount) crash() {
	m.Helper()
	m.storage.severed.Store(true)
	m.line.Sever()
	m.storage = &failingStorage{Storage: m.storage.Storage}
	m.backend.rotations.cancel() // It would go on trying, and say so.
	m.backend = nil
	m.restart()
}

// restart replaces the backend by a new one on the same storage, as an unseal or
// a plugin reload does.
func (m *mount) restart() {
	m.Helper()
	if m.backend != nil {
		m.backend.Cleanup(context.Background())
	}
	if m.log == nil {
		m.log, m.events = &testLog{}, &testEvents{}
		m.Cleanup(func() { requireNoKey(m.T, m.log.String()) })
	}
	system := logical.TestSystemView()
	system.ReplicationStateVal = m.replication
	made, err := Factory(context.Background(), &logical.BackendConfig{
		Logger:       hclog.New(&hclog.LoggerOptions{Output: m.log, Level: hclog.Debug, DisableTime: true}),
		System:       system,
		StorageView:  m.storage,
		Config:       m.options,
		EventsSender: m.events,
	})
	if err != nil {
		m.Fatal(err)
	}
	m.backend = made.(*backend)
	m.backend.transports.DialContext = m.dialLoopback
	if m.network != nil {
		m.line = m.network.Line()
		m.backend.transports.DialContext = m.line.Dial
	}
	m.Cleanup(func() { made.Cleanup(context.Background()) })
}

// dialLoopback fails a test that would call somebody else.
func (m *mount) dialLoopback(ctx context.Context, network, address string) (net.Conn, error) {
	if host, _, _ := net.SplitHostPort(address); host != "localhost" && !net.ParseIP(host).IsLoopback() {
		m.Errorf("the test calls %s", address)
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Name: host, IsNotFound: true}}
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// initializeBackend is what Vault does after it has made a backend.
func (m *mount) initializeBackend() {
	m.Helper()
	if err := m.backend.Initialize(context.Background(), &logical.InitializationRequest{Storage: m.storage}); err != nil {
		m.Fatal(err)
	}
}

// do sends a request and holds a successful answer against the schema that the
// path declares for it.
func (m *mount) do(op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.Helper()
	return m.doAs("", op, path, data)
}

// doAs is do with a Vault token of an entity, which is empty for one that has none.
func (m *mount) doAs(entity string, op logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.Helper()
	if data == nil {
		data = map[string]any{}
	}
	resp, err := m.backend.HandleRequest(context.Background(), &logical.Request{
		Operation: op, Path: path, Data: data, Storage: m.storage, EntityID: entity,
	})
	if err == nil && resp != nil && !resp.IsError() && len(resp.Data) > 0 {
		route := m.backend.Route(path)
		schema.ValidateResponse(m.T, schema.GetResponseSchema(m.T, route, op), resp, true)
		requireDeclared(m.T, route, op, resp)
	}
	return resp, err
}

// requireDeclared fails for a field that an answer has and its schema lacks,
// which the SDK's own check lets pass.
func requireDeclared(t *testing.T, route *framework.Path, op logical.Operation, resp *logical.Response) {
	t.Helper()
	declared := schema.GetResponseSchema(t, route, op)
	for field := range resp.Data {
		if rawAnswer := declared.MediaType != "" && strings.HasPrefix(field, "http_"); rawAnswer {
			continue // Vault makes the HTTP answer of it.
		}
		if declared.Fields[field] == nil {
			t.Fatalf("answer has the undeclared field %q", field)
		}
	}
}

func (m *mount) must(op logical.Operation, path string, data map[string]any) *logical.Response {
	m.Helper()
	return m.mustAs("", op, path, data)
}

func (m *mount) mustAs(entity string, op logical.Operation, path string, data map[string]any) *logical.Response {
	m.Helper()
	resp, err := m.doAs(entity, op, path, data)
	if err != nil {
		m.Fatalf("%s %s: %v", op, path, err)
	}
	if resp.IsError() {
		m.Fatalf("%s %s: %v", op, path, resp.Error())
	}
	return resp
}

// failure is the status and text that a client of Vault would see.
func (m *mount) failure(op logical.Operation, path string, data map[string]any) (status int, text string) {
	m.Helper()
	resp, err := m.do(op, path, data)
	if err == nil && !resp.IsError() {
		m.Fatalf("%s %s succeeded, which it must not", op, path)
	}
	status, responseErr := logical.RespondErrorCommon(&logical.Request{Operation: op}, resp, err)
	logical.AdjustErrorStatusCode(&status, err)
	return status, responseErr.Error()
}

// configData is a config that the simulated service accepts, with overrides.
func (m *mount) configData(overrides map[string]any) map[string]any {
	data := map[string]any{
		"api_key":     testKey,
		"token_url":   m.url + "/apikey",
		"api_url":     m.url,
		"max_retries": 0,
	}
	maps.Copy(data, m.defaults)
	for field, value := range overrides {
		if value == nil {
			delete(data, field)
			continue
		}
		data[field] = value
	}
	return data
}

// writeConfig creates the config or changes it, as Vault would have it.
func (m *mount) writeConfig(name string, overrides map[string]any) {
	m.Helper()
	op := logical.CreateOperation
	if m.storedConfig(name) != "" {
		op = logical.UpdateOperation
	}
	m.must(op, "config/"+name, m.configData(overrides))
}

// readToken returns the answer's data.
func (m *mount) readToken(name string) map[string]any {
	m.Helper()
	return m.must(logical.ReadOperation, "token/"+name, nil).Data
}

// failingStorage fails the call that is so many away, counting all kinds, and
// counts calls.
type failingStorage struct {
	logical.Storage
	calls  atomic.Int64
	failAt atomic.Int64

	refuseWrites atomic.Bool
	// failLate makes the call that is to fail do so after it took effect.
	failLate atomic.Bool
	// severed makes every call fail, for good, and severAt does so from that call on.
	severed atomic.Bool
	severAt atomic.Int64
	// watch, if set, sees what is written.
	watch func(*logical.StorageEntry)
	// lateFailures makes writes and deletions fail after they took effect, and lateBy, if
	// it is not 0, so many nanoseconds before they do.
	lateFailures atomic.Bool
	lateBy       atomic.Int64
	// lateDeletions is lateBy for deletions alone.
	lateDeletions atomic.Int64
	// failPuts and failDeletions make these fail without an effect.
	failPuts, failDeletions atomic.Bool
	// hang makes every call wait until its context ends.
	hang atomic.Bool
	// unreadable, if set, is the key of an entry that cannot be read.
	unreadable atomic.Pointer[string]
	// beforePut, if set, is called before what is put takes effect.
	beforePut atomic.Pointer[func()]
}

var errStorage = errors.New("injected storage failure")

// failNth makes the n-th call from now fail, and only that one.
func (s *failingStorage) failNth(n int64) { s.failAt.Store(s.calls.Load() + n) }

// around makes one call, unless it is to fail before it takes effect.
func (s *failingStorage) around(ctx context.Context, call func() error) error {
	n := s.calls.Add(1)
	if s.hang.Load() {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return ctx.Err() // As Vault's does over gRPC.
	}
	if n == s.severAt.Load() {
		s.severed.Store(true)
	}
	if s.severed.Load() {
		return errStorage
	}
	if n != s.failAt.Load() {
		return call()
	}
	if s.failLate.Load() {
		_ = call()
	}
	return errStorage
}

// aroundWrite is around for calls that a read-only storage refuses.
func (s *failingStorage) aroundWrite(ctx context.Context, call func(context.Context) error) error {
	if s.refuseWrites.Load() {
		return errors.New(logical.ErrReadOnly.Error())
	}
	if by := time.Duration(s.lateBy.Load()); by > 0 {
		time.AfterFunc(by, func() { _ = call(context.Background()) })
		return errStorage
	}
	err := s.around(ctx, func() error { return call(ctx) })
	if s.lateFailures.Load() {
		return errors.Join(err, errStorage)
	}
	return err
}

func (s *failingStorage) Get(ctx context.Context, key string) (entry *logical.StorageEntry, err error) {
	if broken := s.unreadable.Load(); broken != nil && *broken == key {
		s.calls.Add(1)
		return nil, errStorage
	}
	err = s.around(ctx, func() (err error) {
		entry, err = s.Storage.Get(ctx, key)
		return err
	})
	return entry, err
}

func (s *failingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if s.watch != nil {
		s.watch(entry)
	}
	if before := s.beforePut.Load(); before != nil {
		(*before)()
	}
	if s.failPuts.Load() {
		return errStorage
	}
	return s.aroundWrite(ctx, func(ctx context.Context) error { return s.Storage.Put(ctx, entry) })
}

func (s *failingStorage) Delete(ctx context.Context, key string) error {
	deletion := func(ctx context.Context) error { return s.Storage.Delete(ctx, key) }
	if by := time.Duration(s.lateDeletions.Load()); by > 0 {
		time.AfterFunc(by, func() { _ = deletion(context.Background()) })
		return errStorage
	}
	if s.failDeletions.Load() {
		return errStorage
	}
	return s.aroundWrite(ctx, deletion)
}

func (s *failingStorage) List(ctx context.Context, prefix string) (keys []string, err error) {
	err = s.around(ctx, func() (err error) {
		keys, err = s.Storage.List(ctx, prefix)
		return err
	})
	return keys, err
}

func TestFactory_touchesNeitherStorageNorSystemView(t *testing.T) {
	made, err := Factory(context.Background(), &logical.BackendConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if made.Type() != logical.TypeLogical {
		t.Fatalf("type is %v", made.Type())
	}
}

func TestBackend_reportsItsBuildVersion(t *testing.T) {
	made, err := FactoryWithBuild(BuildInfo{Version: "v1.2.3"})(context.Background(), &logical.BackendConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if got := made.(logical.PluginVersioner).PluginVersion().Version; got != "v1.2.3" {
		t.Fatalf("version is %q", got)
	}
}

// Configs are stored under a prefix that is seal-wrapped.
func TestConfigs_areSealWrapped(t *testing.T) {
	paths := newBackend(BuildInfo{}).SpecialPaths()
	if !slices.Equal(paths.SealWrapStorage, []string{"config/", "deleted/"}) {
		t.Fatalf("seal-wrapped are %q", paths.SealWrapStorage)
	}
	if len(paths.Unauthenticated) != 0 {
		t.Fatalf("open to everybody are %q", paths.Unauthenticated)
	}
}

// A panic in a handler is answered with status 500, and its value is not quoted.
func TestHandler_panicIs500(t *testing.T) {
	m := newMount(t)
	m.backend.Paths = append(m.backend.Paths, &framework.Path{
		Pattern: "panic",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: func(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
					panic(testKey)
				},
			},
		},
	})
	status, text := m.failure(logical.ReadOperation, "panic", nil)
	if status != 500 {
		t.Fatalf("status is %d", status)
	}
	requireNoKey(t, text)
}

func TestReplicationState_isReadOnceForManyRequests(t *testing.T) {
	asked := &countingSystemView{SystemView: logical.TestSystemView()}
	view := &systemView{SystemView: asked}
	for range 1000 {
		view.ReplicationState()
	}
	if got := asked.calls.Load(); got > 2 {
		t.Fatalf("asked %d times", got)
	}
}

type countingSystemView struct {
	logical.SystemView
	calls atomic.Int64
}

func (v *countingSystemView) ReplicationState() consts.ReplicationState {
	v.calls.Add(1)
	return v.SystemView.ReplicationState()
}

func TestOperations_haveIDSummaryAndResponses(t *testing.T) {
	for _, path := range newBackend(BuildInfo{}).Paths {
		if path.HelpSynopsis == "" || path.HelpDescription == "" {
			t.Errorf("%s has no help", path.Pattern)
		}
		for op, handler := range path.Operations {
			p := handler.Properties()
			if p.Summary == "" || len(p.Responses) == 0 || p.DisplayAttrs == nil || p.DisplayAttrs.OperationSuffix == "" {
				t.Errorf("%s of %s lacks a summary, responses or an operation id", op, path.Pattern)
			}
		}
		for name, field := range path.Fields {
			if field.Description == "" {
				t.Errorf("field %s of %s has no description", name, path.Pattern)
			}
		}
	}
}
