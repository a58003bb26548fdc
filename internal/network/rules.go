package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ruleSet is what the rules of an instance depend on.
type ruleSet struct {
	table     string
	bridges   string       // prefix of their names
	addresses netip.Prefix // range of all replicas
	host      netip.Addr   // on which services listen; invalid if there are none
	services  []Service
	exposed   uint16 // port on host for exposed ports; 0: none
	linkLocal bool   // whether replicas can reach link-local addresses
}

// metadataAddresses are where a cloud tells its virtual machines who they are and gives them credentials: link-local
// addresses (RFC 3927), of which all clouds use 169.254.169.254, and Azure's WireServer (Azure, "What is IP address
// 168.63.129.16?").
var metadataAddresses = []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("168.63.129.16/32")}

// installRules replaces the instance's table in one transaction. The rules match bridges by the prefix of their names,
// so the number of rules does not depend on the number of environments or replicas. (With a rule for each pair of
// environments, 100 environments no longer fit one netlink message.) If ports is nil, exposed ports are kept, so that
// apps with exposed ports stay reachable while control starts. It returns how many rules each chain has.
func installRules(r ruleSet, ports []netip.AddrPort) (counts map[string]int, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	opened := exposedElements(ports)
	if ports == nil {
		if opened, err = exposedPorts(c, r.table); err != nil {
			return nil, err
		}
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: r.table}
	c.AddTable(t) // so that the next line always finds one
	c.DelTable(t)
	c.AddTable(t)

	open := &nftables.Set{
		Table: t, Name: "open", Concatenation: true,
		// Unique in this transaction. Without an ID, the library uses a counter that is not safe for concurrent use.
		ID:      1,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	}
	elements := make([]nftables.SetElement, len(r.services))
	for i, s := range r.services {
		elements[i] = nftables.SetElement{Key: portKey(s.Protocol, s.Local)}
	}
	if r.exposed != 0 {
		elements = append(elements, nftables.SetElement{Key: portKey("tcp", r.exposed)})
	}
	if err := c.AddSet(open, elements); err != nil {
		return nil, fmt.Errorf("nftables set: %w", err)
	}
	exposed := exposedSet(t)
	exposed.ID = 2
	if err := c.AddSet(exposed, opened); err != nil {
		return nil, fmt.Errorf("nftables set: %w", err)
	}
	counts = map[string]int{}
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		counts[name] = 0
		accept := nftables.ChainPolicyAccept // all other traffic on the machine is left alone
		return c.AddChain(&nftables.Chain{Table: t, Name: name, Type: typ, Hooknum: hook, Priority: priority, Policy: &accept})
	}
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		counts[ch.Name]++
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: all})
	}
	// refuse rejects packets, and resets TCP connections: an ICMP error that arrives while connect is still sending counts
	// only after a retransmission, which takes a second.
	refuse := func(ch *nftables.Chain, parts ...[]expr.Any) {
		rule(ch, append(slices.Clone(parts), protocol("tcp"), reset())...)
		rule(ch, append(slices.Clone(parts), reject())...)
	}
	fromBridge := name(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.bridges)
	toBridge := name(expr.MetaKeyOIFNAME, expr.CmpOpEq, r.bridges)
	// wrongDevice matches packets for a replica that would leave through a device other than a bridge: the bridge is
	// missing, or another route is more specific. The machine reaches the gateways' own addresses through loopback.
	wrongDevice := slices.Concat(name(expr.MetaKeyOIFNAME, expr.CmpOpNeq, r.bridges),
		name(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "lo\x00"),
		ipv4(), destinedFor(r.addresses))

	// Traffic to a service of the gateway is redirected to where the service listens; nothing else is redirected there.
	pre := chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	for _, s := range r.services {
		rule(pre, fromBridge, ipv4(), localOnDevice(), port(s.Protocol, s.Port), redirectTo(r.host, s.Local))
	}
	if r.exposed != 0 {
		rule(pre, fromBridge, ipv4(), localOnDevice(), protocol("tcp"), toAnyOf(exposed), redirectTo(r.host, r.exposed))
		// Control calls TCP apps in the same way, from the gateway itself.
		own := chain("own", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
		rule(own, name(expr.MetaKeyOIFNAME, expr.CmpOpEq, "lo\x00"), ipv4(), source(expr.CmpOpEq, r.addresses), protocol("tcp"), toAnyOf(exposed), redirectTo(r.host, r.exposed))
	}

	in := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	rule(in, established(), accept())
	rule(in, fromBridge, ipv4(), source(expr.CmpOpNeq, r.addresses), drop())
	if r.host.IsValid() {
		rule(in, fromBridge, ipv4(), destination(r.host), redirected(), inSet(open), accept())
	}
	refuse(in, fromBridge)
	if r.host.IsValid() {
		// Otherwise a neighbour on the machine's network could reach it by using its link-layer address.
		rule(in, name(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo\x00"), ipv4(), destination(r.host), drop())
	}

	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(forward, wrongDevice, reject()) // including packets of open connections
	rule(forward, established(), accept())
	rule(forward, fromBridge, spoofed(), drop())
	refuse(forward, toBridge) // from another environment or from outside
	if !r.linkLocal {
		for _, p := range metadataAddresses {
			refuse(forward, fromBridge, ipv4(), destinedFor(p))
		}
	}

	sent := chain("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	rule(sent, wrongDevice, reject())

	out := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	// On loopback the source stays: the ingress knows by it for which environment control calls an app.
	rule(out, name(expr.MetaKeyOIFNAME, expr.CmpOpNeq, r.bridges), name(expr.MetaKeyOIFNAME, expr.CmpOpNeq, "lo\x00"), ipv4(), source(expr.CmpOpEq, r.addresses),
		[]expr.Any{&expr.Masq{}})

	if err := c.Flush(); err != nil {
		return nil, fmt.Errorf("nftables table %s: %w", r.table, err)
	}
	return counts, nil
}

// rulesComplete reports whether a table has all chains with all their rules.
func rulesComplete(table string, counts map[string]int) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables chains: %w", err)
	}
	found := 0
	for _, ch := range chains {
		if ch.Table.Name != table {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if errors.Is(err, unix.ENOENT) {
			return false, nil // removed in this moment
		}
		if err != nil {
			return false, fmt.Errorf("list rules of nftables chain %s: %w", ch.Name, err)
		}
		if counts[ch.Name] != len(rules) || ch.Hooknum == nil {
			return false, nil
		}
		found++
	}
	return found == len(counts), nil
}

// exposedSet returns the set of the gateways' ports that are exposed now.
func exposedSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{
		Table: t, Name: "exposed", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
}

func exposedElements(ports []netip.AddrPort) []nftables.SetElement {
	elements := make([]nftables.SetElement, len(ports))
	for i, p := range ports {
		elements[i] = nftables.SetElement{Key: addressPortKey(p)}
	}
	return elements
}

// exposedPorts returns the elements of a table's set, or none if there is no such table or set.
func exposedPorts(c *nftables.Conn, table string) ([]nftables.SetElement, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == table })
	if i < 0 {
		return nil, nil
	}
	sets, err := c.GetSets(tables[i])
	if err != nil {
		return nil, fmt.Errorf("list sets of nftables table %s: %w", table, err)
	}
	wanted := exposedSet(tables[i])
	if !slices.ContainsFunc(sets, func(s *nftables.Set) bool { return s.Name == wanted.Name }) {
		return nil, nil // created by an older version
	}
	elements, err := c.GetSetElements(wanted)
	if err != nil {
		return nil, fmt.Errorf("list exposed ports of nftables table %s: %w", table, err)
	}
	return elements, nil
}

// setExposed replaces the elements of a table's set in one transaction.
func setExposed(table string, ports []netip.AddrPort) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	set := exposedSet(&nftables.Table{Family: nftables.TableFamilyINet, Name: table})
	elements := exposedElements(ports)
	c.FlushSet(set)
	if len(elements) > 0 {
		if err := c.SetAddElements(set, elements); err != nil {
			return fmt.Errorf("nftables set: %w", err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("exposed ports of nftables table %s: %w", table, err)
	}
	return nil
}

func removeRules(table string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: table}
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", table, err)
	}
	return nil
}

// droppingChains returns the chains of other programs that drop by default: there, our accept rules have no effect.
func droppingChains(own string) ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var names []string
	for _, ch := range chains {
		if ch.Table.Name == own || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop || ch.Hooknum == nil {
			continue
		}
		if *ch.Hooknum == *nftables.ChainHookForward || *ch.Hooknum == *nftables.ChainHookInput {
			names = append(names, ch.Table.Name+"/"+ch.Name)
		}
	}
	return names, nil
}

func portKey(protocol string, port uint16) []byte {
	key := make([]byte, 8) // each part of a concatenation is padded to four bytes
	key[0] = protocolNumber(protocol)
	binary.BigEndian.PutUint16(key[4:], port)
	return key
}

func addressPortKey(p netip.AddrPort) []byte {
	key := make([]byte, 8)
	copy(key, p.Addr().AsSlice())
	binary.BigEndian.PutUint16(key[4:], p.Port())
	return key
}

func protocolNumber(name string) byte {
	if name == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// protocol matches a transport protocol. It must come before every match on ports.
func protocol(name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocolNumber(name)}},
	}
}

// port matches packets of a protocol to a destination port.
func port(of string, number uint16) []expr.Any {
	return append(protocol(of),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
	)
}

// toAnyOf matches packets to an address and port in a set.
func toAnyOf(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Payload{DestRegister: 9, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // as in inSet
		&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID},
	}
}

// redirectTo changes the destination of a connection. It can be used only in a NAT chain.
func redirectTo(a netip.Addr, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}

// redirected matches connections whose destination was changed. So a service cannot be reached by its own address.
func redirected() []expr.Any {
	const changed = 1 << 5 // IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(changed), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func destination(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

// name compares the start of a device's name with prefix. It does so by comparing fewer bytes than a name has.
func name(key expr.MetaKey, op expr.CmpOp, prefix string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte(prefix)}}
}

// ipv4 matches IPv4 packets. In an inet table it must come before every match on an IPv4 header.
func ipv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

func source(op expr.CmpOp, p netip.Prefix) []expr.Any {
	mask := ipNet(p).Mask
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func destinedFor(p netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: ipNet(p).Mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func established() []expr.Any {
	bits := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: bits, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// localOnDevice matches packets to an address of the device on which they arrived: the gateway, and no other address of
// the host.
func localOnDevice() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// spoofed matches packets whose source address is not routed to the device on which they arrived.
func spoofed() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

func inSet(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		// Four-byte registers start at 8, so register 9 holds the second half of a concatenation in register 1.
		&expr.Payload{DestRegister: 9, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID},
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// reset ends a TCP connection. It can be used only on TCP.
func reset() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
}

// reject answers at once, so that a client in a replica gets an error instead of a timeout.
func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}
