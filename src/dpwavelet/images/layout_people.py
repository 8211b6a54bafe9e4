"""Who is in a picture, as names of fields, folders and files tell it: patient_id, patient_007/scan.png."""

import re
from collections.abc import Mapping

PERSONS = (
    "identity", "person", "people", "individual", "participant", "patient", "pat", "subject", "student",
    "child", "user", "client", "customer", "member", "employee", "donor", "speaker", "mrn", "medicalrecord",
    "pid", "ssn", "nhs", "accession", "encounter", "caseid", "caseno", "casenumber", "studyid", "studyuid",
    "studyinstanceuid", "patienten", "proband", "probanden", "personen", "fallnr", "fallnummer", "kunde",
    "kunden", "schueler", "versicherten", "mitarbeiter",
)  # fmt: skip
IN_NAMES = ("sub", *PERSONS)  # and so do those of brain images begin

_ENDINGS = re.compile(r"(ids?|identifier|name|number|nummer|nr|no|key|code|hash)$")
_NUMBERED = re.compile(r"([^\W\d_]+)[-_ .]?([^\W_]*\d[^\W_]*)")


def tells_person(field: str) -> bool:
    """Whether a field is named like a person: patient, patient_id, PatientNumber."""
    plain = re.sub(r"[^a-z0-9]", "", field.lower())
    return plain in PERSONS or _ENDINGS.sub("", plain) in PERSONS


def person_of(part: str) -> tuple[str, str] | None:
    """Which person a folder or file is named after: patient_007 is ("patient", "007")."""
    found = _NUMBERED.match(part)
    return (found[1].lower(), found[2]) if found and found[1].lower() in IN_NAMES else None


def people_in(name: str) -> Mapping[str, str]:
    """The person that the path of an image names first, as a field; nothing where it names none."""
    return dict([found] if (found := next(filter(None, map(person_of, name.split("/"))), None)) else [])
