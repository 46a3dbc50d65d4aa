"""The status document as XML."""

from __future__ import annotations

import http.client
from xml.etree import ElementTree

import pytest


def test_the_document_is_utf8_as_it_declares(wire):
    wire.push(b"x", filename="é日本🔭.bin")
    content = wire.get("STATUS", file_id="é日本🔭.bin").response.content
    assert content.startswith(b'<?xml version="1.0" ?>\n<!DOCTYPE NgamsStatus SYSTEM "http://127.0.0.1:')
    assert 'FileId="é日本🔭.bin"' in content.decode("utf-8")
    assert ElementTree.fromstring(content).find("DiskStatus/FileStatus").get("FileId") == "é日本🔭.bin"


@pytest.mark.parametrize("file_id", ["<a&b>\"'", "]]>", "&amp;", "  two  blanks  ", "a/../b"])
def test_markup_in_an_id_is_escaped(wire, file_id):
    wire.push(b"x", filename="a.bin", file_id=file_id)
    assert wire.get("STATUS", file_id=file_id).file["FileId"] == file_id


def test_a_refusal_that_quotes_what_xml_cannot_hold_is_still_xml(idle_wire):
    refused = idle_wire.get("STATUS", file_id="a\x01\ufffe<b")
    assert "a\ufffd\ufffd<b" in refused.message


def test_white_space_in_a_message_survives_the_reading_of_an_attribute(idle_wire):
    assert "a\tb\nc\rd" in idle_wire.get("STATUS", file_id="a\tb\nc\rd").message


def test_the_content_type_names_no_charset(idle_wire):
    assert idle_wire.get("STATUS").response.headers["Content-Type"] == "text/xml"


def test_the_document_names_a_dtd_that_the_server_has(idle_wire):
    content = idle_wire.get("STATUS").response.text
    url = content.partition('SYSTEM "')[2].partition('"')[0]
    dtd = idle_wire.session.get(url, timeout=30)
    assert (dtd.status_code, dtd.headers["Content-Type"][:8]) == (200, "text/xml")
    assert "<!ELEMENT NgamsStatus" in dtd.text


def test_a_host_header_cannot_break_out_of_the_document(idle_server):
    connection = http.client.HTTPConnection(idle_server.host, idle_server.port, timeout=30)
    connection.request("GET", "/STATUS", headers={"Host": 'localhost:1"[<!ENTITY x "y">]'})
    content = connection.getresponse().read()
    connection.close()
    assert b"ENTITY" not in content
    assert ElementTree.fromstring(content).tag == "NgamsStatus"
