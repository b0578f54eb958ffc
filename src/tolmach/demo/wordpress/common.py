"""What the WordPress plugins share: nonces, forms, headers and the page around a widget.

Nonces follow `wp_create_nonce` and `wp_verify_nonce`: ten hexadecimal digits that are the same for
all guests of a site during a tick of half their life, and are good in that tick and the next.
"""

import hashlib
import hmac
from email.parser import BytesParser
from email.policy import HTTP
from typing import ClassVar, Literal
from urllib.parse import parse_qsl

from tolmach.demo.base import Headers, Piece, Reply, Visit, World, json_text, page_reply, server_page
from tolmach.demo.faults import Wanted

__all__ = [
    "AJAX_HEADERS",
    "CRITICAL",
    "EXPIRES",
    "NonceBook",
    "Plugin",
    "attribute",
    "cache_headers",
    "form_of",
    "php_json",
    "wordpress_not_found",
    "wordpress_page",
]

EXPIRES = ("Expires", "Wed, 11 Jan 1984 05:00:00 GMT")


class NonceBook:
    """The nonces of one site.

    Ticks alone would make a nonce last; for the faults there are generations on top: when a nonce is
    refused on request, its generation ends for everybody, and the next one has other nonces.
    """

    def __init__(self, world: World, mount: str, action: str) -> None:
        self._settings = world.settings
        self._log = world.log
        self._mount = mount
        self._action = action
        self._generation = 0
        self._answered = 1
        self._asked = 0
        self._cache: dict[tuple[int, int], str] = {}

    def _tick(self) -> int:
        return int(self._settings.now() // (self._settings.nonce_life / 2))

    def _nonce(self, tick: int, generation: int) -> str:
        key = (tick, generation)
        nonce = self._cache.get(key)
        if nonce is None:
            text = f"{self._mount}|{self._action}|{tick}|{generation}"
            nonce = hmac.new(self._settings.secret, text.encode(), hashlib.sha256).hexdigest()[-12:-2]
            if len(self._cache) > 64:
                self._cache.clear()
            self._cache[key] = nonce
        return nonce

    def current(self) -> str:
        return self._nonce(self._tick(), self._generation)

    def issue(self) -> str:
        """The nonce for a visitor; counted as a handshake."""
        self._log.handshakes[self._mount] += 1
        self._log.changed()
        return self.current()

    def old(self) -> str:
        """A nonce that is good no more, as a cache keeps it."""
        return self._nonce(self._tick() - 3, self._generation)

    def check(self, nonce: str, wanted: Wanted) -> Literal[0, 1, 2]:
        """0 when it is refused, 1 in its first tick, 2 in its second. Counted once for each question."""
        tick = self._tick()
        good: Literal[0, 1, 2] = 0
        if nonce and hmac.compare_digest(nonce.encode(), self._nonce(tick, self._generation).encode()):
            good = 1
        elif nonce and hmac.compare_digest(nonce.encode(), self._nonce(tick - 1, self._generation).encode()):
            good = 2
        if good and self._made_stale(wanted):
            good = 0
        if not good:
            self._log.refusals[self._mount] += 1
            self._log.changed()
        return good

    def _made_stale(self, wanted: Wanted) -> bool:
        """Whether a fault has this nonce refused. Each generation is good for one whole answer at least."""
        self._asked += 1
        if "nonce-refused" in wanted:
            return True
        every = int(wanted.get("stale-nonce-every", 0))
        if not self._answered or not ("stale-nonce" in wanted or (every and self._asked >= every)):
            return False
        self._end_generation(answered=0)
        return True

    def _end_generation(self, answered: int) -> None:
        self._generation += 1
        self._answered = answered
        self._asked = 0

    def answered(self, whole: bool, wanted: Wanted) -> None:
        """An answer was given with a nonce that `check` had let pass."""
        if whole:
            self._answered += 1
        if "nonce-expires" in wanted:
            self._end_generation(answered=1)


def php_json(value: object) -> bytes:
    """As `wp_json_encode` writes it: ASCII, slashes escaped."""
    return json_text(value, slashes=True)


def attribute(value: object) -> str:
    """JSON as `esc_attr` leaves it in a single-quoted attribute."""
    text = php_json(value).decode().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#039;")


def form_of(visit: Visit) -> dict[str, str]:
    """`$_POST`: an URL-encoded or multipart body; empty for any other. File parts are left out."""
    body = visit.request.body
    if visit.content_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if visit.content_type != "multipart/form-data":
        return {}
    head = f"content-type: {visit.header('content-type')}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    fields = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str) and part.get_filename() is None:
            content = part.get_payload(decode=True)
            fields[name] = content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
    return fields


_PAGE = """<!doctype html>
<html lang="en-US" >
<head>
	<meta charset="UTF-8" />
	<meta name="viewport" content="width=device-width, initial-scale=1" />
	<title>{title} &#8211; tolmach demo</title>
<link rel="https://api.w.org/" href="{base}/wp-json/" />
<meta name="generator" content="WordPress 6.8.7" />
{head}</head>

<body class="wp-singular page-template-default page page-id-{post} wp-embed-responsive">
<div id="page" class="site">
<header id="masthead" class="site-header"><p class="site-title"><a href="{base}/">tolmach demo</a></p></header>
<article id="post-{post}" class="post-{post} page type-page status-publish hentry entry">
	<header class="entry-header alignwide"><h1 class="entry-title">{title}</h1></header>
	<div class="entry-content">
		{widget}
	</div><!-- .entry-content -->
</article>
</div><!-- #page -->
{foot}</body>
</html>
"""


def wordpress_page(
    visit: Visit, title: str, post: int, widget: str, *, head: str = "", foot: str = "", age: int | None = None
) -> Reply:
    """A page of a WordPress site with a widget in it; `age` is the seconds it lay in a cache."""
    html = _PAGE.format(title=title, base=visit.base, post=post, widget=widget, head=head, foot=foot)
    headers: Headers = [
        ("Link", f'<{visit.base}/wp-json/>; rel="https://api.w.org/"'),
        ("Link", f"<{visit.base}/?p={post}>; rel=shortlink"),
    ]
    return page_reply(html, headers=headers + (cache_headers(age) if age is not None else []))


def cache_headers(age: int) -> Headers:
    """What a page cache says of a page that lay in it for `age` seconds."""
    return [("Age", str(age)), ("X-Cache", "HIT"), ("Cache-Control", "public, max-age=86400")]


CRITICAL = (
    "<p>There has been a critical error on this website.</p><p><a "
    'href="https://wordpress.org/documentation/article/faq-troubleshooting/">Learn more about '
    "troubleshooting WordPress.</a></p>"
)


def wordpress_not_found(visit: Visit) -> Reply:
    reply = wordpress_page(visit, "Page not found", 0, "<p>It looks like nothing was found at this location.</p>")
    reply.status = 404
    return reply


class Plugin:
    """The common half of the two plugins that answer at `admin-ajax.php`."""

    AJAX = "/wp-admin/admin-ajax.php"
    kind: ClassVar[str] = ""
    NO_CACHE: ClassVar[str] = "no-cache, must-revalidate, max-age=0"
    """Cache-Control of their JSON; it varies with the version of WordPress."""

    def __init__(self, world: World, mount: str, action: str) -> None:
        self.world = world
        self.mount = mount
        self.nonces = NonceBook(world, mount, action)

    def ajax(self, body: bytes, status: int = 200, *, html: bool = False) -> Reply:
        """A whole answer of `admin-ajax.php`."""
        content_type = "text/html; charset=UTF-8" if html else "application/json; charset=UTF-8"
        headers = [("Content-Type", content_type), *AJAX_HEADERS, EXPIRES, ("Cache-Control", self.NO_CACHE)]
        return Reply(status, headers, (Piece(body),))

    def say(self, value: object, status: int = 200) -> Reply:
        return self.ajax(php_json(value), status)

    def no_action(self, action: str | None = "") -> Reply:
        """What `admin-ajax.php` answers to an action that nobody registered, and to none at all."""
        reply = self.ajax(b"0", 400, html=True)
        if not action:
            early = {name for name, _ in AJAX_HEADERS[1:]}
            reply.headers = [header for header in reply.headers if header[0] not in early]
        return reply

    def failure(self, visit: Visit, status: int) -> Reply:
        if status == 500:
            return page_reply(f"<!DOCTYPE html><html><body>{CRITICAL}</body></html>", 500)
        return server_page(status)


AJAX_HEADERS: Headers = [
    ("X-Robots-Tag", "noindex"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "strict-origin-when-cross-origin"),
    ("X-Frame-Options", "SAMEORIGIN"),
]
