"""What the project needs of others: bounded versions, and licences that don't bind it."""

from licences import PAGE, is_copyleft, licence_of, required, requirements
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def test_every_dependency_has_a_lowest_and_a_highest_version() -> None:
    unbounded = []
    for line in requirements():
        operators = {part.operator for part in Requirement(line).specifier}
        if not ({">=", "=="} & operators and {"<", "<=", "=="} & operators):
            unbounded.append(line)
    assert unbounded == []


def test_the_list_of_licences_names_every_dependency() -> None:
    listed = PAGE.read_text(encoding="utf-8")
    missing = [
        line for line in requirements() if f"| {canonicalize_name(Requirement(line).name)} |" not in listed
    ]
    assert missing == [], "run “make licences”"


def test_no_dependency_would_bind_the_app_by_its_licence() -> None:
    packages = required(requirements())
    assert len(packages) > 30
    assert [name for name, package in packages.items() if is_copyleft(licence_of(package))] == []
    assert is_copyleft("GNU General Public License v3 (GPLv3)")
