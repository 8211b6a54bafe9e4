"""Who is in a picture, as names of fields, folders and files tell it: patient_id, patient_007/scan.png."""

import posixpath
import re
from collections.abc import Mapping

PERSONS = (
    "identity", "person", "people", "individual", "participant", "patient", "pat", "subject", "student",
    "child", "user", "client", "customer", "member", "employee", "donor", "speaker", "mrn", "medicalrecord",
    "pid", "ssn", "nhs", "patienten", "proband", "probanden", "personen", "kunde", "kunden", "schueler",
    "versicherten", "mitarbeiter", "versicherungsnummer", "fallnummer", "fallnr", "pseudonym", "fullname",
    "lastname", "familyname", "surname", "nachname", "familienname",
)  # fmt: skip
NUMBERED = {
    "patient": "patient", "pat": "patient", "subject": "subject", "sub": "subject", "person": "person",
    "participant": "participant", "individual": "individual", "proband": "proband", "donor": "donor",
    "student": "student", "mrn": "mrn", "pid": "pid",
}  # fmt: skip
"""Words before the number of a person in the name of a folder or file, and the field that they make."""

_ENDINGS = re.compile(r"(ids?|uu?id|identifier|name|number|nummer|nr|no|key|code|hash)$")
_FOLDER = re.compile(r"([^\W\d_]+)[-_ .]?(\S*\d\S*)")
_FILE = re.compile(r"([^\W\d_]+)[-_ .]?((?:(?:19|20)\d\d[-_])?[^\W_]*\d[^\W_]*)")  # after a year comes more


def tells_person(field: str) -> bool:
    """Whether a field is named like a person: patient, patient_id, PatientNumber."""
    plain = re.sub(r"[^a-z0-9]", "", field.lower())
    return plain in PERSONS or _ENDINGS.sub("", plain) in PERSONS


def is_person(folder: str) -> bool:
    """Whether a folder is named after a person, as patient_007 is, and so is no class."""
    return bool(_person(_FOLDER.fullmatch(folder)))


def people_in(name: str) -> Mapping[str, str]:
    """Whom the path of an image names, as fields: patient_007/scan.png has the patient 007."""
    *folders, file = name.split("/")
    found = [_person(_FOLDER.fullmatch(folder)) for folder in folders]
    found.append(_person(_FILE.match(posixpath.splitext(file)[0])))
    fields: dict[str, str] = {}
    for field, number in filter(None, found):
        fields.setdefault(field, number)
    return fields


def _person(found: re.Match[str] | None) -> tuple[str, str] | None:
    return (NUMBERED[word], found[2]) if found and (word := found[1].lower()) in NUMBERED else None
