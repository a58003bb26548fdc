package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"penstock/internal/supervisor/port"
)

// offline runs f in a new network namespace, so that nothing it creates appears on this machine's network.
func offline(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, see apart
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("new network namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

func nftablesRules(context.Context, Options) []Finding {
	err := offline(func() error {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer c.CloseLasting()
		t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "penstock-doctor"})
		chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
			return c.AddChain(&nftables.Chain{Table: t, Name: name, Type: typ, Hooknum: hook, Priority: priority})
		}
		input := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
		// These rules isolate containers from each other and from this machine, by address type and connection state.
		c.AddRule(&nftables.Rule{Table: t, Chain: input, Exprs: []expr.Any{
			&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
			&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH},
		}})
		out := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
		c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: []expr.Any{&expr.Masq{}}})
		return c.Flush()
	})
	if err != nil {
		return fail("containers cannot be isolated from each other", asRoot+"; use a kernel with nf_tables, nft_fib_inet, nft_reject_inet and nft_masq", "%v", err)
	}
	return ok("rules with fib, conntrack, reject and masquerade can be loaded")
}

func links(context.Context, Options) []Finding {
	err := offline(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "pdoctor0"}}
		if err := h.LinkAdd(bridge); err != nil {
			return fmt.Errorf("bridge: %w", err)
		}
		pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pdoctor1", MasterIndex: bridge.Index}, PeerName: "pdoctor2"}
		if err := h.LinkAdd(pair); err != nil {
			return fmt.Errorf("veth: %w", err)
		}
		if err := h.LinkSetIsolated(pair, true); err != nil {
			return fmt.Errorf("isolated port: %w", err)
		}
		return nil
	})
	if err != nil {
		return fail("containers get no network", asRoot+"; load the modules: modprobe bridge veth", "%v", err)
	}
	return ok("a bridge with an isolated port can be created")
}

// firewall looks for other programs' chains that drop packets. A packet must pass all chains, not only ours.
func firewall(context.Context, Options) []Finding {
	c, err := nftables.New()
	if err != nil {
		return warn("another firewall may drop packets from containers", asRoot, "%v", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return warn("another firewall may drop packets from containers", asRoot, "%v", err)
	}
	var dropping []string
	for _, ch := range chains {
		if ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop || ch.Hooknum == nil || ch.Type != nftables.ChainTypeFilter {
			continue
		}
		switch *ch.Hooknum {
		case *nftables.ChainHookForward, *nftables.ChainHookInput:
			dropping = append(dropping, ch.Table.Name+"/"+ch.Name)
		}
	}
	if len(dropping) > 0 {
		return warn("containers may be unable to reach the internet, or the ingress and the resolver on this machine",
			"accept packets from the bridges, whose names start with ps, in that firewall", "policy drop in %s", strings.Join(dropping, ", "))
	}
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && len(strings.TrimSpace(string(b))) > 0 {
		return warn("rules of legacy iptables were not checked; they may drop packets from containers", "iptables-legacy -S FORWARD", "no nftables chain drops packets; legacy iptables is in use")
	}
	return ok("no other chain drops forwarded or incoming packets")
}

func ports(_ context.Context, o Options) []Finding {
	var found []Finding
	for _, l := range o.Listeners {
		f := Finding{Check: l.Name + " port", Level: OK}
		holders := port.Holders(l.Address)
		switch {
		case len(holders) == 0:
			f.Found = l.Address + " is free"
			if err := bind(l.Address); err != nil {
				f.Level, f.Found = Fail, l.Address+": "+err.Error()
				f.Means, f.Mend = "the server does not start", "choose another address with "+l.Setting
			}
		case ours(holders, o.Running):
			f.Found = l.Address + " is used by the running server"
		default:
			f.Level, f.Found = Fail, l.Address+" is used by "+holders[0].String()
			f.Means, f.Mend = "the server does not start", "stop it, or choose another address with "+l.Setting
		}
		found = append(found, f)
	}
	return found
}

// ours reports whether the running server uses the port. The supervisor holds every listener.
func ours(holders []port.Process, server int) bool {
	for _, h := range holders {
		if server != 0 && h.PID == server {
			return true
		}
	}
	return false
}

func bind(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		if op, isOp := errors.AsType[*net.OpError](err); isOp {
			return op.Err
		}
		return err
	}
	return ln.Close()
}

func names(ctx context.Context, o Options) []Finding {
	host := "x." + o.Domain
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		means := "programs on this machine cannot find apps by name"
		mend := "point " + o.Domain + " and all names below it to this machine in your DNS"
		if strings.HasSuffix(o.Domain, ".localhost") {
			means = "curl and browsers resolve *.localhost themselves; other programs cannot find apps by name"
			mend = "send requests to 127.0.0.1 with the app's name in the Host header, or use your own domain with --domain"
		}
		return warn(means, mend, "%s does not resolve", host)
	}
	return ok("%s resolves to %s", host, strings.Join(addresses, ", "))
}
