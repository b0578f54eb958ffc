"""Addresses that others name: how they are read, which are refused, and what is allowed besides."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tolmach.egress import Allowed, check_url, is_public
from tolmach.errors import AddressRefused, ConfigError

HOSTILE = [
    # No http, no absolute address
    ("", "url"),
    ("example.com", "url"),
    ("//example.com/", "url"),
    ("/etc/passwd", "url"),
    ("http:example.com", "url"),
    ("http:/example.com", "url"),
    ("https:///example.com/", "host"),
    ("http://", "host"),
    ("http://?q", "host"),
    ("file:///etc/passwd", "scheme"),
    ("ftp://example.com/", "scheme"),
    ("gopher://example.com:6379/_SLAVEOF", "scheme"),
    ("dict://127.0.0.1:11211/stats", "scheme"),
    ("ldap://example.com/", "scheme"),
    ("data:text/html,hi", "scheme"),
    ("javascript:alert(1)", "scheme"),
    ("jar:http://example.com!/", "scheme"),
    ("ws://example.com/", "scheme"),
    ("unix:///var/run/docker.sock", "scheme"),
    ("view-source:http://127.0.0.1/", "scheme"),
    ("http://example.com/" + "a" * 8192, "url"),
    # Characters over which readers differ
    (" http://127.0.0.1/", "url"),
    ("http://127.0.0.1/\n", "url"),
    ("ht\ntp://127.0.0.1/", "url"),
    ("http://127.0.\t0.1/", "url"),
    ("http://example.com\\@127.0.0.1/", "url"),
    ("http:\\\\127.0.0.1\\", "url"),
    ("http://example.com/\r\nX-A: b", "url"),
    ("http://example.com\x00.evil.test/", "url"),
    ("http://exa mple.com/", "url"),
    ("http://127.0.0.1\u3000/", "url"),
    # Credentials
    ("http://user:password@example.com/", "credentials"),
    ("http://user@example.com/", "credentials"),
    ("http://@example.com/", "credentials"),
    ("http://example.com@127.0.0.1/", "credentials"),
    ("http://example.com:80@127.0.0.1:80/", "credentials"),
    ("http://127.0.0.1:80@example.com/", "credentials"),
    ("http://[::1]@example.com/", "credentials"),
    # Ports
    ("http://example.com:0/", "port"),
    ("http://example.com:65536/", "port"),
    ("http://example.com:0000065536/", "port"),
    ("http://example.com:-1/", "port"),
    ("http://example.com:８０/", "port"),
    ("http://example.com:80:80/", "port"),
    ("http://example.com:22/", "port"),
    ("http://example.com:00025/", "port"),
    ("http://example.com:6379/", "port"),
    ("http://example.com:11211/", "port"),
    ("http://[2606:4700::1111]x:80/", "port"),
    # Loopback, in every spelling
    ("http://127.0.0.1/", "address"),
    ("HTTP://127.0.0.1:8080/", "address"),
    ("http://127.1/", "address"),
    ("http://127.0.1/", "address"),
    ("http://127.0.0.1./", "address"),
    ("http://127.255.255.254/", "address"),
    ("http://2130706433/", "address"),
    ("http://2130706433./", "address"),
    ("http://017700000001/", "address"),
    ("http://0x7f000001/", "address"),
    ("http://0X7F.0x0.0x0.0x1/", "address"),
    ("http://0x7f.1/", "address"),
    ("http://0177.0.0.1/", "address"),
    ("http://0000000177.0.0.01/", "address"),
    ("http://127.0x000000001/", "address"),
    ("http://0/", "address"),
    ("http://0x/", "address"),
    ("http://0.0.0.0/", "address"),
    ("http://１２７.０.０.１/", "address"),
    ("http://127。0。0。1/", "address"),
    ("http://127．0．0．1/", "address"),
    ("http://①②⑦.⓪.⓪.①/", "address"),
    ("http://127.0.0.𝟏/", "address"),
    # What is a number and no address
    ("http://127.0.0.08/", "host"),
    ("http://127.0.0.256/", "host"),
    ("http://1.2.3.4.5/", "host"),
    ("http://4294967296/", "host"),
    ("http://256.1/", "host"),
    ("http://example.0x7f/", "host"),
    ("http://1_0.0.0.1/", "host"),
    # Escapes and other tricks in a host
    ("http://%31%32%37.0.0.1/", "host"),
    ("http://127.0.0.1%2f.example.com/", "host"),
    ("http://localhost%00.example.com/", "host"),
    ("http://exam..ple.com/", "host"),
    ("http://.example.com/", "host"),
    ("http://-example.com/", "host"),
    ("http://example.com../", "host"),
    ("http://" + "a" * 64 + ".example/", "host"),
    ("http://" + "a." * 130 + "example/", "host"),
    ("http://example.com,evil.test/", "host"),
    ("http://ex*mple.com/", "host"),
    ("http://fa\u00df.example/", "host"),
    ("http://local\u00adhost/", "host"),
    ("http://127.0.0.1\u200b/", "host"),
    ("http://evil.c\u2100.example/", "host"),
    # Private, shared, link-local, metadata
    ("http://10.0.0.1/", "address"),
    ("http://10.1/", "address"),
    ("http://167772161/", "address"),
    ("http://172.16.0.1/", "address"),
    ("http://172.31.255.255/", "address"),
    ("http://192.168.0.1/", "address"),
    ("http://0300.0250.0.1/", "address"),
    ("http://100.64.0.1/", "address"),
    ("http://100.100.100.200/latest/meta-data/", "address"),
    ("http://169.254.169.254/latest/meta-data/", "address"),
    ("http://0xA9FEA9FE/", "address"),
    ("http://2852039166/", "address"),
    ("http://169.16689662/", "address"),
    ("http://169.254.170.2/v2/credentials", "address"),
    ("http://168.63.129.16/", "address"),
    ("http://192.0.0.192/", "address"),
    # Multicast, reserved, documentation, benchmarks
    ("http://224.0.0.1/", "address"),
    ("http://239.255.255.250/", "address"),
    ("http://240.0.0.1/", "address"),
    ("http://255.255.255.255/", "address"),
    ("http://192.0.2.1/", "address"),
    ("http://198.51.100.1/", "address"),
    ("http://203.0.113.1/", "address"),
    ("http://198.18.0.1/", "address"),
    ("http://192.88.99.1/", "address"),
    # IPv6
    ("http://[::1]/", "address"),
    ("http://[::]/", "address"),
    ("http://[0:0:0:0:0:0:0:1]:8080/", "address"),
    ("http://[fe80::1]/", "address"),
    ("http://[fec0::1]/", "address"),
    ("http://[fc00::1]/", "address"),
    ("http://[fd00:ec2::254]/latest/meta-data/", "address"),
    ("http://[ff02::1]/", "address"),
    ("http://[100::1]/", "address"),
    ("http://[2001:db8::1]/", "address"),
    ("http://[3fff::1]/", "address"),
    ("http://[2001:2::1]/", "address"),
    ("http://[4000::1]/", "address"),
    ("http://[5f00::1]/", "address"),
    ("http://[fe80::1%25eth0]/", "host"),
    ("http://[fe80::1%eth0]/", "host"),
    ("http://[::1/", "host"),
    ("http://[127.0.0.1]/", "host"),
    ("http://[localhost]/", "host"),
    ("http://[]/", "host"),
    ("http://::1/", "port"),
    # IPv4 inside IPv6
    ("http://[::ffff:127.0.0.1]/", "address"),
    ("http://[::ffff:7f00:1]/", "address"),
    ("http://[0:0:0:0:0:ffff:a9fe:a9fe]/", "address"),
    ("http://[::ffff:10.0.0.1]/", "address"),
    ("http://[::127.0.0.1]/", "address"),
    ("http://[::8.8.8.8]/", "address"),
    ("http://[::ffff:0:127.0.0.1]/", "address"),
    ("http://[64:ff9b::127.0.0.1]/", "address"),
    ("http://[64:ff9b::a9fe:a9fe]/", "address"),
    ("http://[64:ff9b:1::10.0.0.1]/", "address"),
    ("http://[2002:7f00:1::]/", "address"),
    ("http://[2002:a9fe:a9fe::1]/", "address"),
    ("http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "address"),
    ("http://[2606:4700::5efe:127.0.0.1]/", "address"),
    ("http://[2606:4700::200:5efe:a00:1]/", "address"),
    # Names of private networks
    ("http://localhost/", "name"),
    ("http://LOCALHOST./", "name"),
    ("http://ｌｏｃａｌｈｏｓｔ/", "name"),
    ("http://a.localhost:8080/", "name"),
    ("http://localhost.localdomain/", "name"),
    ("http://router/", "name"),
    ("http://printer.local/", "name"),
    ("http://metadata.google.internal/computeMetadata/v1/", "name"),
    ("http://nas.home.arpa/", "name"),
    ("http://kubernetes.default.svc/", "name"),
    ("http://instance-data/latest/", "name"),
]

PUBLIC = [
    ("https://example.com", "https://example.com/"),
    ("HTTPS://Example.COM/Path?Q=a@b#part", "https://example.com/Path?Q=a@b"),
    ("https://example.com./", "https://example.com/"),
    ("http://example.com:80/", "http://example.com/"),
    ("http://example.com:/", "http://example.com/"),
    ("https://example.com:0443/", "https://example.com/"),
    ("http://example.com:8080?q", "http://example.com:8080/?q"),
    ("https://münchen.example/", "https://xn--mnchen-3ya.example/"),
    ("https://пример.рф/вопрос", "https://xn--e1afmkfd.xn--p1ai/вопрос"),
    ("https://xn--e1afmkfd.xn--p1ai/", "https://xn--e1afmkfd.xn--p1ai/"),
    ("https://ｅxample.com/", "https://example.com/"),
    ("https://_dmarc.example.com/", "https://_dmarc.example.com/"),
    ("https://4chan.example/", "https://4chan.example/"),
    ("https://1.2.3.4x/", "https://1.2.3.4x/"),
    ("https://8.8.8.8/", "https://8.8.8.8/"),
    ("https://8.8.8.8/@127.0.0.1/", "https://8.8.8.8/@127.0.0.1/"),
    ("https://0x08080808/", "https://8.8.8.8/"),
    ("https://[::ffff:8.8.8.8]/", "https://8.8.8.8/"),
    ("https://[2606:4700:0:0::1111]:8443/", "https://[2606:4700::1111]:8443/"),
    ("https://[64:ff9b::8.8.8.8]/", "https://[64:ff9b::808:808]/"),
    ("https://[2606:4700::5efe:8.8.8.8]/", "https://[2606:4700::5efe:808:808]/"),
]


def test_the_table_is_long_enough_and_names_each_address_once():
    assert len(HOSTILE) >= 80
    assert len({url for url, _ in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize(("url", "reason"), HOSTILE)
def test_hostile_addresses_are_refused(url, reason):
    with pytest.raises(AddressRefused) as caught:
        Allowed().check(url)
    assert caught.value.reason == reason
    assert isinstance(caught.value, ConfigError)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(("url", "normal"), PUBLIC)
def test_public_addresses_pass_in_their_one_spelling(url, normal):
    address = Allowed().check(url)
    assert address.url == normal
    assert check_url(normal) == address, "and what passed once passes as it was written"


def test_the_parts_of_an_address():
    address = check_url("HTTP://[2606:4700::1111]:8443/a?b#c")
    assert (address.scheme, address.host, address.port) == ("http", "2606:4700::1111", 8443)
    assert address.ip == IPv6Address("2606:4700::1111")
    assert check_url("https://example.com").ip is None
    assert check_url("https://example.com").port == 443


# Networks

REFUSED_4 = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
]
REFUSED_6 = [
    "::/16",
    "100::/64",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
]


def _inside(network):
    return st.integers(int(network[0]), int(network[-1]))


_REFUSED_IPV4 = st.sampled_from([IPv4Network(network) for network in REFUSED_4]).flatmap(_inside).map(IPv4Address)


@st.composite
def _spelled(draw, ips=_REFUSED_IPV4):
    """An IPv4 address in one of its spellings: 1 to 4 numbers, each decimal, octal or hexadecimal, some full-width."""
    number = int(draw(ips))
    parts = draw(st.integers(1, 4))
    heads = [number >> 24 & 255, number >> 16 & 255, number >> 8 & 255][: parts - 1]
    numbers = [*heads, number & (256 ** (5 - parts) - 1)]
    forms = ("{}", "0{:o}", "000{:o}", "0x{:x}", "0X{:X}", "0x000{:x}")
    text = ".".join(draw(st.sampled_from(forms)).format(one) for one in numbers)
    if draw(st.booleans()):
        text = "".join(draw(st.sampled_from((c, chr(ord(c) + 0xFEE0)))) for c in text)
    return text + draw(st.sampled_from(("", ".", "。")))


@given(_spelled())
def test_a_refused_network_is_refused_in_any_spelling(host):
    with pytest.raises(AddressRefused):
        Allowed().check(f"http://{host}/")


@given(_spelled(st.integers(0, 2**32 - 1).map(IPv4Address)))
def test_every_spelling_is_read_as_the_same_address(host):
    address = check_url(f"http://{host}/")
    assert isinstance(address.ip, IPv4Address)
    assert check_url(f"http://{address.ip}/") == address


@given(_REFUSED_IPV4)
def test_a_refused_ipv4_address_is_refused_inside_ipv6(ip):
    number = int(ip)
    for base in ("::ffff:0:0", "::", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "2606:4700::5efe:0:0"):
        assert not is_public(IPv6Address(int(IPv6Address(base)) + number)), base
    assert not is_public(IPv6Address((0x2002 << 112) + (number << 80) + 1)), "6to4"
    assert not is_public(IPv6Address((0x20010000 << 96) + (number ^ 0xFFFFFFFF))), "Teredo"


@pytest.mark.parametrize("network", REFUSED_4 + REFUSED_6)
def test_a_refused_network_is_refused_from_its_first_address_to_its_last(network):
    kind = IPv6Network if ":" in network else IPv4Network
    assert not is_public(kind(network)[0])
    assert not is_public(str(kind(network)[-1]))


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_address_that_python_knows_as_special_is_not_public(ip):
    """The other way round as well, but for what is refused for good reasons of ours."""
    ours = any(ip in IPv4Network(network) for network in REFUSED_4)
    assert is_public(ip) is not ours
    assume(not ip.is_global)
    assert not is_public(ip)


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_an_ipv6_address_that_python_knows_as_special_is_not_public(ip):
    assert not is_public(ip) or ip.is_global


@pytest.mark.parametrize("ip", ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.0", "100.128.0.0", "2606:4700::1111"])
def test_public_addresses_are_public(ip):
    assert is_public(ip)


@given(st.text(max_size=60) | st.text("htp:/.@[]%0123456789abcdefx\\#?", max_size=60).map("http://".__add__))
def test_any_text_is_an_address_or_refused(text):
    try:
        address = check_url(text)
    except AddressRefused:
        return
    assert address.scheme in ("http", "https")
    assert check_url(address.url) == address


# What is allowed besides


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("10.0.0.0/8", "http://10.1.2.3/"),
        ("10.0.0.0/8", "http://0xa010203/"),
        ("127.0.0.1", "http://127.1:8080/"),
        ("fd00::/8", "http://[fd00::1]/"),
        ("10.0.0.0/8", "http://[::ffff:10.1.2.3]/"),
        ("*.corp", "http://wiki.corp/"),
        ("router", "http://router/"),
        ("localhost", "http://localhost:11434/"),
    ],
)
def test_what_is_listed_passes(entry, url):
    with pytest.raises(AddressRefused):
        Allowed().check(url)
    assert Allowed([entry]).check(url).url


def test_a_listed_name_is_known_in_any_spelling():
    allowed = Allowed(["Intranet.Example.", "*.bücher.example"])
    assert allowed.names("intranet.example")
    assert allowed.names("a.xn--bcher-kva.example")
    assert not allowed.names("xn--bcher-kva.example")
    assert not allowed.names("a.intranet.example")


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("10.0.0.0/8", "http://11.0.0.1:22/"),
        ("10.0.0.0/8", "http://user@10.0.0.1/"),
        ("10.0.0.0/8", "http://127.0.0.1/"),
        ("10.0.0.0/8", "ftp://10.0.0.1/"),
        ("router", "http://a.router.local/"),
        ("*.corp", "http://corp/"),
        ("localhost", "http://127.0.0.1/"),
        ("localhost", "http://localhost:6379/"),
    ],
)
def test_only_what_is_listed_passes(entry, url):
    with pytest.raises(AddressRefused):
        Allowed([entry]).check(url)


def test_one_private_address_of_a_name_is_enough():
    assert Allowed().check_resolved("a.example", ["8.8.8.8", "8.8.8.8"]) == ("8.8.8.8",)
    with pytest.raises(AddressRefused) as caught:
        Allowed().check_resolved("a.example", ["8.8.8.8", "10.0.0.1"])
    assert caught.value.reason == "resolved"
    assert "10.0.0.1" not in str(caught.value), "strangers do not learn what this network has"
    assert Allowed(["a.example"]).check_resolved("a.example", ["10.0.0.1"]) == ("10.0.0.1",)
    assert Allowed(["10.0.0.0/8"]).check_resolved("a.example", ["::ffff:10.0.0.1"]) == ("::ffff:10.0.0.1",)


@pytest.mark.parametrize(
    "entry",
    ["", "10.0.0.1/8", "10.0.0.0/33", "http://a.example", "a b", "a.example:80", "0x7f.1", "*.", "user@a.example"],
)
def test_a_wrong_entry_is_told(entry):
    with pytest.raises(ConfigError):
        Allowed([entry])
