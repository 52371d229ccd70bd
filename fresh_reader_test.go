// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

const testMountID = "a-mount"

// intercepted is a mount whose requests come by gRPC.
type intercepted struct {
	*mount
	fresh *FreshReader
}

func intercept(m *mount) *intercepted {
	i := &intercepted{mount: m, fresh: &FreshReader{}}
	i.fresh.mounts.Store(testMountID, m.backend)
	return i
}

func contextOfMount(id string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.Pairs(pluginutil.MultiplexingCtxKey, id))
}

// send returns the reply to a request, and whether it came from the SDK's handler.
func (i *intercepted) send(id string, r *pb.Request) (reply *pb.HandleRequestReply, handled bool) {
	i.Helper()
	handler := func(_ context.Context, request any) (any, error) {
		handled = true
		return i.handle(request.(*pb.HandleRequestArgs).Request)
	}
	got, err := i.fresh.Intercept(contextOfMount(id), &pb.HandleRequestArgs{Request: r}, &grpc.UnaryServerInfo{FullMethod: pb.Backend_HandleRequest_FullMethodName}, handler)
	if err != nil && !handled {
		i.Fatal(err)
	}
	reply, _ = got.(*pb.HandleRequestReply)
	return reply, handled
}

func readOf(name string) *pb.Request {
	return &pb.Request{Operation: "read", Path: "token/" + name, Data: "null"}
}

// handle does what the SDK's HandleRequest does, but for the state of replication.
func (m *mount) handle(r *pb.Request) (*pb.HandleRequestReply, error) {
	req, err := pb.ProtoRequestToLogicalRequest(r)
	if err != nil {
		return nil, err
	}
	req.Storage = m.storage
	resp, failure := m.backend.HandleRequest(context.Background(), req)
	response, err := pb.LogicalResponseToProtoResponse(resp)
	return &pb.HandleRequestReply{Response: response, Err: pb.ErrToProtoErr(failure)}, err
}

// received is what Vault makes of a reply.
func (m *mount) received(reply *pb.HandleRequestReply) *logical.Response {
	m.Helper()
	resp, err := pb.ProtoResponseToLogicalResponse(reply.Response)
	if err != nil {
		m.Fatal(err)
	}
	return resp
}

func (i *intercepted) requireSameAsHandler(reply *pb.HandleRequestReply, r *pb.Request) {
	i.Helper()
	want, err := i.handle(r)
	if err != nil {
		i.Fatal(err)
	}
	if !reflect.DeepEqual(i.received(reply), i.received(want)) || reply.Err != nil || want.Err != nil {
		i.Errorf("the reply to a %s of %s differs from the handler's", r.Operation, r.Path)
	}
}

// TestFreshReader_whichRequests has the handler answer whatever needs more than a token in memory,
// and compares what it would have answered to the others.
func TestFreshReader_whichRequests(t *testing.T) {
	with := func(data string) *pb.Request {
		return &pb.Request{Operation: "read", Path: "token/shared", Data: data}
	}
	for _, c := range []struct {
		name    string
		id      string
		request *pb.Request
		handled bool
	}{
		{"a shared token", testMountID, readOf("shared"), false},
		{"a shared token, by an entity", testMountID, &pb.Request{Operation: "read", Path: "token/shared", Data: "null", EntityID: "a"}, false},
		{"a shared token, wrapped", testMountID, &pb.Request{Operation: "read", Path: "token/shared", Data: "null", WrapInfo: &pb.RequestWrapInfo{TTL: 1}}, false},
		{"an empty object", testMountID, with("{}"), false},
		{"a field", testMountID, with(`{"min_ttl":"60"}`), true},
		{"a field that is unknown", testMountID, with(`{"other":"60"}`), true},
		{"another mount", "another-mount", readOf("shared"), true},
		{"no mount", "", readOf("shared"), true},
		{"a dedicated token", testMountID, &pb.Request{Operation: "update", Path: "token/shared", Data: "null"}, true},
		{"a help", testMountID, &pb.Request{Operation: "help", Path: "token/shared", Data: "null"}, true},
		{"dedicated tokens only", testMountID, readOf("dedicated"), true},
		{"a token for each entity", testMountID, readOf("entity"), true},
		{"a lease", testMountID, readOf("leased"), true},
		{"no config", testMountID, readOf("missing"), true},
		{"a slash", testMountID, readOf("shared/"), true},
		{"no name", testMountID, readOf(""), true},
		{"another path", testMountID, &pb.Request{Operation: "read", Path: "status/shared", Data: "null"}, true},
		{"the path of the config", testMountID, &pb.Request{Operation: "read", Path: "config/shared", Data: "null"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := newSim(t)
				m := intercept(newPipedMount(t, sim, sim))
				for name, settings := range map[string]map[string]any{
					"shared": nil, "dedicated": {"cache": "false"}, "entity": {"cache": "entity"}, "leased": {"lease": true},
				} {
					m.writeConfig(name, settings)
				}
				reply, handled := m.send(c.id, c.request)
				if handled != c.handled {
					t.Fatalf("the handler was asked: %t", handled)
				}
				if !handled {
					m.requireSameAsHandler(reply, c.request)
				}
			})
		})
	}
}

// freshReadTest runs in a bubble, on a mount with a config, us-south, whose token is fresh.
func freshReadTest(t *testing.T, test func(m *intercepted)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sim := newSim(t)
		m := intercept(newPipedMount(t, sim, sim))
		m.writeConfig("us-south", nil)
		test(m)
	})
}

// requireFresh fails if the handler is asked for a token, and returns the token's id.
func (i *intercepted) requireFresh(name string) string {
	i.Helper()
	reply, handled := i.send(testMountID, readOf(name))
	if handled {
		i.Fatal("the handler was asked")
	}
	return i.received(reply).Data["token_id"].(string)
}

func (i *intercepted) requireHandled(why string) {
	i.Helper()
	if _, handled := i.send(testMountID, readOf("us-south")); !handled {
		i.Errorf("%s: the handler was not asked", why)
	}
}

// TestFreshReader_keepTheTokenFresh holds that such a read counts as one: for the metrics, and for
// the token, which is replaced in time because it was read.
func TestFreshReader_keepTheTokenFresh(t *testing.T) {
	freshReadTest(t, func(m *intercepted) {
		first := m.requireFresh("us-south")
		m.requireSample(`vault_apic_reads_total{outcome="shared"}`, 1)
		time.Sleep(50 * time.Minute)
		if m.requireFresh("us-south") == first {
			t.Error("the token was not replaced")
		}
	})
}

// TestFreshReader_waitForTheHandler goes through what takes a token's freshness.
func TestFreshReader_waitForTheHandler(t *testing.T) {
	freshReadTest(t, func(m *intercepted) {
		time.Sleep(50 * time.Minute)
		m.requireHandled("a token that nobody read until it was due")
		m.requireFresh("us-south")
		m.inUse().recheckAt(time.Now())
		m.requireHandled("a config in doubt")
		m.requireFresh("us-south")
		m.backend.invalidate(context.Background(), "config/us-south")
		m.requireHandled("a config that another node wrote")
		before := m.requireFresh("us-south")
		m.writeConfig("us-south", nil)
		if m.requireFresh("us-south") == before {
			t.Error("a write with a key left the token of the one before")
		}
		m.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus, Status: http.StatusServiceUnavailable})
		time.Sleep(50 * time.Minute)
		m.requireHandled("a token that cannot be replaced")
		m.must(logical.DeleteOperation, "config/us-south", nil)
		m.requireHandled("a deleted config")
	})
}

func TestFreshReader_tokenOfKeysThatWorkOnce(t *testing.T) {
	renewalTest(t, apicsim.PlatformKeys{}, func(m *mount) {
		i := intercept(m)
		first := i.requireFresh("saas")
		time.Sleep(7 * time.Hour)
		if i.requireFresh("saas") == first {
			t.Error("the token was not replaced")
		}
	})
}

// TestFreshReader_nodesThatMayNotWrite have the handler forward what Vault's active node must do.
func TestFreshReader_nodesThatMayNotWrite(t *testing.T) {
	freshReadTest(t, func(m *intercepted) {
		m.writeConfig("leased", map[string]any{"lease": true})
		for _, state := range []consts.ReplicationState{consts.ReplicationPerformanceStandby, consts.ReplicationPerformanceSecondary} {
			m.replication = state
			m.restart()
			m.fresh.mounts.Store(testMountID, m.backend)
			m.requireHandled("the first read")
			m.requireFresh("us-south")
			if _, handled := m.send(testMountID, readOf("leased")); !handled {
				t.Errorf("with replication state %#x, the handler was not asked for a lease", uint32(state))
			}
		}
	})
}

// TestFreshReader_cleanup holds that nothing is kept of a mount that is gone.
func TestFreshReader_cleanup(t *testing.T) {
	freshReadTest(t, func(m *intercepted) {
		info := &grpc.UnaryServerInfo{FullMethod: pb.Backend_Cleanup_FullMethodName}
		handler := func(context.Context, any) (any, error) { return &pb.Empty{}, nil }
		if _, err := m.fresh.Intercept(contextOfMount(testMountID), &pb.Empty{}, info, handler); err != nil {
			t.Fatal(err)
		}
		for id := range m.fresh.mounts.Range {
			t.Errorf("%v is kept", id)
		}
	})
}

// TestFreshReader_panic has the handler answer after a panic, which must not end the process.
func TestFreshReader_panic(t *testing.T) {
	freshReadTest(t, func(m *intercepted) {
		m.backend.metrics = nil
		reply, handled := m.send(testMountID, readOf("us-south"))
		if err := pb.ProtoErrToErr(reply.Err); !handled || err == nil || !strings.Contains(err.Error(), "the plugin failed on this request") {
			t.Errorf("handled: %t, error %v", handled, err)
		}
		if !strings.Contains(m.log.String(), "recovered from a panic") {
			t.Error("the panic is not logged")
		}
	})
}

// FuzzFreshReader finds no request that gets another response than the handler's.
func FuzzFreshReader(f *testing.F) {
	for _, op := range []string{"read", "update", "list"} {
		for _, path := range []string{"token/us-south", "token/us-south/", "token//us-south", "token/", "token/US-SOUTH", "status/us-south"} {
			for _, data := range []string{"null", "{}", "", `{"min_ttl":1}`, `{"name":"other"}`} {
				f.Add(op, path, data, "entity")
			}
		}
	}
	f.Fuzz(func(t *testing.T, op, path, data, entity string) {
		synctest.Test(t, func(t *testing.T) {
			sim := newSim(t)
			m := intercept(newPipedMount(t, sim, sim))
			m.writeConfig("us-south", nil)
			r := &pb.Request{Operation: op, Path: path, Data: data, EntityID: entity}
			if reply, handled := m.send(testMountID, r); !handled {
				m.requireSameAsHandler(reply, r)
			}
		})
	})
}
