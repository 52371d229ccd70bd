// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// clusterNodes is how many servers a cluster has.
const clusterNodes = 3

// cluster is three servers on one raft storage, with the plugin mounted at apic/.
type cluster struct {
	// The stack has the simulation; its own server is never started.
	*stack
	nodes     []*stack
	unsealKey string
	// gate is between the plugins and IBM.
	gate *killGate
}

// newCluster returns when all servers are voters.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{stack: newServerlessStack(t, "", pluginBinary)}
	c.gate = &killGate{ibm: c.sim}
	var err error
	c.service, err = apicsim.StartOn(c.gate, "127.0.0.1:0")
	c.check(err)
	t.Cleanup(c.service.Close)
	for i := range clusterNodes {
		node := *c.stack
		node.dir, node.storage = newDir(t), raftMember(i)
		node.startUninitialized()
		c.nodes = append(c.nodes, &node)
	}
	first := c.nodes[0]
	c.unsealKey = first.initialize()
	// A new member becomes a voter after ten seconds otherwise.
	first.write("sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"})
	for _, node := range c.nodes[1:] {
		_, err := node.client.Sys().RaftJoin(&api.RaftJoinRequest{LeaderAPIAddr: first.client.Address()})
		c.check(err)
		node.client.SetToken(first.client.Token())
		c.unseal(node)
	}
	c.awaitVoters()
	first.mount()
	return c
}

// raftMember is the storage of one server. The intervals are a fifth of the default,
// so that a member that is back is noticed soon.
func raftMember(i int) string {
	return fmt.Sprintf(`
storage "raft" {
  path                         = "raft"
  node_id                      = "node-%d"
  performance_multiplier       = 1
  autopilot_update_interval    = "400ms"
  autopilot_reconcile_interval = "2s"
}`, i)
}

func (c *cluster) unseal(node *stack) {
	c.Helper()
	_, err := node.client.Sys().Unseal(c.unsealKey)
	c.check(err)
}

// restart starts a server that was killed, on its old storage and ports.
func (c *cluster) restart(node *stack) {
	c.Helper()
	token := node.client.Token()
	if !node.tryStart() {
		c.Fatal("vault did not start again")
	}
	node.client.SetToken(token)
	c.unseal(node)
}

// leader waits for the server that is active.
func (c *cluster) leader() (leader *stack) {
	c.Helper()
	c.eventually("one of the servers is active", func() bool {
		for _, node := range c.nodes {
			health, err := node.client.Sys().Health()
			if err == nil && !health.Sealed && !health.Standby {
				leader = node
				return true
			}
		}
		return false
	})
	return leader
}

// awaitVoters waits until the cluster can lose any of its servers.
func (c *cluster) awaitVoters() {
	c.Helper()
	present := until(2*time.Minute, nil, func() bool {
		state, err := c.leader().client.Sys().RaftAutopilotState()
		return err == nil && state != nil && state.Healthy && len(state.Voters) == clusterNodes && state.FailureTolerance == 1
	})
	if !present {
		c.Fatalf("the cluster does not have %d voters that are well", clusterNodes)
	}
}
