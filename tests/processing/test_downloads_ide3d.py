"""Downloads: which addresses are asked, how much comes, and how long it may take."""

import http.server
import io
import os
import socket
import threading

import pytest

from processing import downloads_ide3d
from processing.downloads_ide3d import PRIVATE_VARIABLE, download
from processing.image_reading_ide3d import read_image
from processing.video_reading_ide3d import read_video


@pytest.fixture
def serve():
    """Start a server whose answer to GET is a function; give its address."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *args):
                """Say nothing."""

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        servers[-1].daemon_threads = True
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/video.mp4"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send(handler, content=b"bytes", status=200, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def closed(monkeypatch):
    monkeypatch.setenv(PRIVATE_VARIABLE, "0")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_hosts_of_a_list_may_be_private_and_redirects_leave_it_not(serve, monkeypatch):
    monkeypatch.delenv(PRIVATE_VARIABLE, raising=False)
    url = serve(send)
    elsewhere = serve(lambda handler: send(handler, status=302, Location=url.replace("127.0.0.1", "localhost")))
    file = io.BytesIO()
    download(url, file, 100, hosts={"127.0.0.1"})
    assert file.getvalue() == b"bytes"
    with pytest.raises(ValueError, match="leads to localhost; allowed hosts are 127.0.0.1"):
        download(elsewhere, file, 100, hosts={"127.0.0.1"})
    with pytest.raises(ValueError, match="private network"):  # a stranger's URL, which says it itself
        download(url, file, 100, hosts=())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0.0.0.0", "10.0.0.1", "192.168.1.1", "169.254.169.254", "[::1]",
     "[::ffff:127.0.0.1]", "[fe80::1]", "[fd00::1]"],
)  # fmt: skip
def test_private_addresses_are_not_asked(closed, monkeypatch, host):
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: pytest.fail("connected"))
    with pytest.raises(ValueError, match=f"video.mp4 is not downloaded.* set {PRIVATE_VARIABLE}=1"):
        download(f"http://{host}:9/video.mp4", io.BytesIO(), 10)


def test_a_url_may_say_the_own_machine_and_lead_nowhere_else_there(closed, serve, monkeypatch):
    monkeypatch.delenv(PRIVATE_VARIABLE)
    file = io.BytesIO()
    download(serve(send).replace("127.0.0.1", "localhost"), file, 10)
    assert file.getvalue() == b"bytes"
    for target in ("http://10.1.1.1/a", "http://[::1]/a", "http://localhost/a", "http://169.254.169.254/a"):
        address = serve(lambda handler, to=target: send(handler, status=302, Location=to))
        with pytest.raises(ValueError, match="video.mp4 is not downloaded. It leads to"):
            download(address, io.BytesIO(), 10)
    with pytest.raises(ValueError, match="leads to 169.254.169.254"):
        download("http://169.254.169.254/a", io.BytesIO(), 10)


def test_a_name_or_a_redirect_hides_no_private_address(closed, serve, monkeypatch):
    monkeypatch.delenv(PRIVATE_VARIABLE)
    address = serve(send)
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **kwargs: look_up("127.0.0.1", *args, **kwargs))
    with pytest.raises(ValueError, match="leads to public.example, 127.0.0.1"):
        read_video(address.replace("127.0.0.1", "public.example"), lambda metadata: [0])


def test_a_proxy_is_the_user_s_and_leads_to_no_private_number(closed, serve, monkeypatch):
    proxy = serve(lambda handler: send(handler, handler.path.encode()))
    monkeypatch.setenv("http_proxy", proxy.removesuffix("/video.mp4"))
    monkeypatch.setenv("no_proxy", "")
    file = io.BytesIO()
    download("http://public.example/video.mp4", file, 100)
    assert file.getvalue() == b"http://public.example/video.mp4"
    for host in ("127.0.0.1", "localhost", "[::1]"):
        with pytest.raises(ValueError, match="is not downloaded"):
            download(f"http://{host}/video.mp4", io.BytesIO(), 100)


def test_the_user_may_open_the_own_network(serve, monkeypatch):
    monkeypatch.setenv(PRIVATE_VARIABLE, "1")
    file = io.BytesIO()
    download(serve(send), file, 10)
    assert file.getvalue() == b"bytes"


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://example.org/a", "data:text/plain,abc"])
def test_redirects_lead_to_http_alone(serve, monkeypatch, target):
    monkeypatch.setenv(PRIVATE_VARIABLE, "1")
    address = serve(lambda handler: send(handler, status=302, Location=target))
    with pytest.raises(ConnectionError, match="video.mp4 cannot be downloaded"):
        download(address, io.BytesIO(), 1000)


@pytest.mark.parametrize("is_header", [True, False])
def test_a_server_that_trickles_is_left(serve, monkeypatch, is_header):
    monkeypatch.setenv(PRIVATE_VARIABLE, "1")
    monkeypatch.setattr(downloads_ide3d, "MAX_SECONDS", 0.5)
    is_over = threading.Event()

    def trickle(handler):
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"X-A: " if is_header else b"\r\n"))
        while not is_over.wait(0.05):
            handler.wfile.write(b"x")

    try:
        with pytest.raises(TimeoutError, match="video.mp4 is still coming after 0.5 s"):
            download(serve(trickle), io.BytesIO(), 1000)
    finally:
        is_over.set()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("name", ["video.mp4", "picture.png", "plain"])
def test_pipes_and_devices_are_named_and_not_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)  # opening it would wait for a writer
    for path in (str(tmp_path / name), "/dev/zero"):
        with pytest.raises(ValueError, match=f"{path} is a pipe, device or socket"):
            read_video(path, lambda metadata: [0])
        with pytest.raises(ValueError, match=f"{path} is a pipe, device or socket"):
            read_image(path)
