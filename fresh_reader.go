// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/pluginutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/plugin/pb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokensource"
)

// FreshReader answers reads of a fresh shared token, which most requests are, before they get to the
// SDK's gRPC server and the framework: those take a third of the plugin's CPU time for such a
// read. The responses are the same. All other requests are left to the SDK.
//
// The zero value is ready to use, for all mounts of a process.
type FreshReader struct {
	// mounts are the backends that are set up, as *backend by their multiplexing ID.
	mounts sync.Map
}

// Factory is FactoryWithBuild for backends whose fresh tokens Intercept is to answer with.
func (f *FreshReader) Factory(build BuildInfo) logical.Factory {
	factory := FactoryWithBuild(build)
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		made, err := factory(ctx, conf)
		if b, ok := made.(*backend); ok {
			f.mounts.Store(multiplexingID(ctx), b)
		}
		return made, err
	}
}

// Intercept is a grpc.UnaryServerInterceptor.
func (f *FreshReader) Intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	switch info.FullMethod {
	case pb.Backend_HandleRequest_FullMethodName:
		args, _ := request.(*pb.HandleRequestArgs)
		if data := f.answer(ctx, args.GetRequest()); data != "" {
			return &pb.HandleRequestReply{Response: &pb.Response{Data: data}, WalIndex: &pb.WALIndex{}}, nil
		}
	case pb.Backend_Cleanup_FullMethodName:
		f.mounts.Delete(multiplexingID(ctx))
	}
	return handler(ctx, request)
}

// multiplexingID tells mounts apart that share a process. It is empty for one that does not.
func multiplexingID(ctx context.Context) string {
	return firstValue(ctx, pluginutil.MultiplexingCtxKey)
}

// hasIndexState says whether Vault wants to get back the state of replication that it has sent, which
// is left to the SDK. The keys are those of logicalCtxToPBMetadataCtx in its package plugin.
func hasIndexState(ctx context.Context) bool {
	for _, key := range []string{"index_state_local", "index_state_replicated"} {
		if index := firstValue(ctx, key); index != "" && index != "0" {
			return true
		}
	}
	return false
}

func firstValue(ctx context.Context, key string) string {
	values := metadata.ValueFromIncomingContext(ctx, key)
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// answer returns the data of the response to a read of a fresh shared token, as JSON, which is
// empty for all other requests.
func (f *FreshReader) answer(ctx context.Context, r *pb.Request) string {
	name, isToken := strings.CutPrefix(r.GetPath(), tokenPath)
	if !isToken || r.GetOperation() != string(logical.ReadOperation) || !hasNoFields(r) || hasIndexState(ctx) {
		return ""
	}
	mounted, _ := f.mounts.Load(multiplexingID(ctx))
	b, isMounted := mounted.(*backend)
	if !isMounted {
		return ""
	}
	data, err := b.freshTokenData(name)
	if err != nil {
		return "" // The handler is to say so.
	}
	return data
}

// hasNoFields knows the two ways that Vault has to send none.
func hasNoFields(r *pb.Request) bool { return r.GetData() == "null" || r.GetData() == "{}" }

// freshTokenData returns what tokenRead would answer, empty if that would have to wait, or to look
// at more than the token. Vault forwards no read of a fresh token without a lease.
func (b *backend) freshTokenData(name string) (data string, err error) {
	defer b.recoverTo(&err, logical.ReadOperation)
	e := b.configs.inUse(name)
	if e == nil || e.isToBeRechecked() || e.config.Cache != cacheShared || e.config.Lease {
		return "", nil
	}
	token := e.source.ReadFresh(0)
	if token == nil {
		return "", nil
	}
	answer := tokensource.Response{IssuedToken: token}
	// Marshal and a conversion would copy the text once more. An encoder ends it with a new line.
	var text strings.Builder
	if err := json.NewEncoder(&text).Encode(newTokenData(e.config, answer, time.Now())); err != nil {
		return "", err
	}
	b.countRead(logical.ReadOperation, e.config, answer)
	return strings.TrimSuffix(text.String(), "\n"), nil
}
