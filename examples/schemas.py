"""Hold what is published to a JSON Schema, and let it grow.

python examples/schemas.py
"""

import json

import telpher
from telpher.sync import connect

ORDER = {
    "type": "object",
    "properties": {"id": {"type": "integer", "minimum": 1}, "note": {"type": "string"}},
    "required": ["id"],
    "additionalProperties": False,
}

with connect() as bus:
    bus.declare("example.checked")
    bus.purge("example.checked")
    print("version", bus.set_schema("example.checked", ORDER))

    bus.publish("example.checked", json.dumps({"id": 7}).encode())
    for body in (b'{"id": 0}', b'{"note": "no id"}', b"not even JSON"):
        try:
            bus.publish("example.checked", body)
        except telpher.SchemaViolation as error:
            print("refused:", error.text)

    stricter = ORDER | {"required": ["id", "note"]}
    for problem in bus.check_schema("example.checked", stricter):
        print("does not go together:", problem.pointer, problem.reason)

    wider = ORDER | {"properties": ORDER["properties"] | {"urgent": {"type": "boolean"}}}
    print("version", bus.set_schema("example.checked", wider))
    bus.publish("example.checked", json.dumps({"id": 8, "urgent": True}).encode())
    print(bus.inspect("example.checked").messages, "messages")
    bus.delete("example.checked")
