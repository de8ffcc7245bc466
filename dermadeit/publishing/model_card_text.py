"""What the model card says in words. No figure stands here: those come from result files alone."""

from __future__ import annotations

INTENDED_USE = """\
For teaching and research: what a small distilled vision transformer can and can't predict from dermoscopy
photos, and how its answers can be checked. Users build or study such models and know the limits below.

One network gives one distribution over the eight diagnoses of ISIC 2019. It is read for four tasks.
`diagnosis`: which of the eight is it? `malignancy`: is it malignant (melanoma, basal cell carcinoma, squamous
cell carcinoma)? `binary`: is it a melanocytic nevus, or one of the seven others? `multiclass`: is it melanoma,
basal cell carcinoma or squamous cell carcinoma, *given* that it is one of them?"""

OUT_OF_SCOPE = """\
- Any decision about a patient: diagnosis, triage, reassurance, choice of treatment. It is not a medical
  device.
- Self-examination, and screening of any population.
- Photos without a dermatoscope, mucosa, nails, wounds and tattoos.
- `multiclass` on a lesion that may be benign: it has only three malignant classes and can't answer "none".
- Any diagnosis beyond the eight: the network answers with one of them all the same.
- Ranking or describing people by the estimated skin tone of a photo."""

DATA = """\
ISIC 2019: HAM10000, BCN_20000 and MSK, dermoscopy photos labelled with one of eight diagnoses, most of the
malignant ones by histopathology. Retrospective, de-identified by their publishers, gathered in Austria,
Australia, Spain and the United States. The splits are by lesion and near duplicate, stratified by source and
diagnosis: a lesion lies in one split only. The recipe is chosen on validation and calibration. Probabilities,
thresholds, sets and gates are fitted on calibration; class weights, and the sets of rare classes, on validation
too. Test is read once per final model."""

AGE_AND_SEX = """\
The answer of the photo, joined with the age and the sex of the patient by a regression that was fitted on the
splits validation and calibration. The network itself sees only the photo."""

OTHER_CAMERAS = """\
Photos of ISIC 2020, of other clinics and cameras: melanomas against lesions that are nevi or unknown, and
count as benign here. None of their lesions is in ISIC 2019. They were looked at while recipe and gates were
chosen, and never trained on. So these figures are a little too good for a camera that nobody has tried."""

FAILURE_MODES = """\
- **Sources differ.** Case mix and resolution differ between the collections. A model may recognise the
  collection instead of the disease. Read a figure over all sources together with the figures by source.
- **Confident errors.** A high probability is no proof. Probabilities are calibrated only for lesions like
  those of the calibration split, at their prevalence.
- **Other images.** The gates withhold the answer for most images without skin, not for all of them. They
  do not detect a diagnosis that the network does not know: such a lesion may get a confident answer.
- **Other cameras.** A lesion photo of another clinic is answered, with a warning where it differs from the
  training photos. An answer without a warning can be wrong too.
- **Poor photos.** Blur, exposure, hair, ink, rulers and dark corners change answers. The table on robustness
  shows how much, where it was measured.
- **Turned photos.** Another orientation of the same photo can change the answer. The views show this.
- **Heatmaps** show which area raised a score, not whether the answer is right. Some fail their test.
- **Skin.** Most of the photos are of light skin. Figures on darker skin are of few images or missing."""

LICENCES = """\
Code: Apache-2.0. Weights: CC BY-NC 4.0, research use only, because of the images that they were trained on.

- HAM10000: Tschandl, Rosendahl and Kittler, *Scientific Data* 2018 (CC BY-NC 4.0).
- BCN_20000: Combalia et al., 1908.02288, 2019 (CC BY-NC 4.0).
- MSK: Codella et al., *ISBI* 2018, ISIC Archive.
- DeiT: Touvron et al., *ICML* 2021 (Apache-2.0). MobileNetV2: Sandler et al., *CVPR* 2018 (Apache-2.0).
  EfficientNetV2: Tan and Le, *ICML* 2021 (Apache-2.0). AugReg, the start of the transformers: Steiner et al.,
  *TMLR* 2022 (Apache-2.0)."""

REGENERATE = """\
Every figure here is copied from a result file, and this file is written by the last command. `TASK` is each of
`diagnosis`, `malignancy`, `binary` and `multiclass`; `manifest.csv` is the table that `train/prepare_isic2019.py`
wrote, `not_skin` a folder of photos without skin.

```sh
python -m dermadeit calibrate manifest.csv --not-skin not_skin
python -m dermadeit evaluate manifest.csv --split test --task TASK --output assets/evidence/TASK
python -m dermadeit benchmark add assets/evidence/diagnosis && python -m dermadeit benchmark table
python -m dermadeit evaluate isic2020_external.csv --task malignancy \\
    --output assets/evidence/malignancy/other_cameras
python -m dermadeit robustness manifest.csv --split test --task TASK --output assets/evidence/TASK
python -m benchmarks.evidence.gate_curve manifest.csv --not-skin not_skin --external isic2020_external.csv \\
    --checkpoint assets/checkpoints/dermadeit --output assets/evidence/diagnosis/gate_curve.json
python -m benchmarks.evidence.out_of_distribution manifest.csv --not-skin not_skin \\
    --checkpoint assets/checkpoints/dermadeit --output assets/evidence/diagnosis/out_of_distribution.json
python -m benchmarks.evidence.faithfulness manifest.csv --task TASK --split test --images 200 \\
    --output assets/evidence/TASK/faithfulness.json
python -m benchmarks.evidence.error_detection manifest.csv --task TASK --split test \\
    --output assets/evidence/TASK/error_detection.json
python -m dermadeit model-card
```"""

ETHICS = """\
Only published, de-identified photos were used; no patient was involved in this work, none was recruited, and
no protocol was registered. No dermatologist reviewed the model. Of external data, only the photos under “Other
cameras” were tried."""

CHECKLIST: tuple[tuple[str, str, str], ...] = (
    ("Intended use, role and users", "3a, 3b", "Intended use"),
    ("Objectives", "4", "Intended use"),
    ("Data sources, eligibility, retrospective design", "5a, 6a, 6b", "Data and splits"),
    ("Preprocessing, missing data", "7, 11", "Training"),
    ("Reference standard", "8a", "Data and splits"),
    ("Assignment to partitions and their disjointness", "12a", "Data and splits"),
    ("Sample size", "10, 21", "Data and splits"),
    ("Model, software, initialisation", "12c, 22", "Training"),
    ("Training, class imbalance and choice of the final model", "12c, 13", "Training"),
    ("Metrics and their uncertainty", "12e, 23a", "Figures"),
    ("Fairness and subgroups", "14, 23a, 23b", "Slices"),
    ("Model output and thresholds", "15", "Operating points"),
    ("Calibration", "12e, 23a", "Calibration"),
    ("Robustness and sensitivity analysis", "12e", "Robustness"),
    ("Explainability", "–", "Explanation checks"),
    ("Failure analysis", "26", "Failure modes"),
    ("External testing", "16", "Ethics and what is missing"),
    ("Limitations", "26", "Failure modes"),
    ("Usability: poor or missing input", "27a", "Gates and abstention"),
    (
        "Ethics, involvement of patients, registration, protocol",
        "17, 18c, 18d, 19",
        "Ethics and what is missing",
    ),
    ("Access to code, model and data", "18e, 18f, 22", "How to regenerate"),
)
"""Topic of CLAIM 2024 (Tejani et al.), item of TRIPOD+AI (Collins et al. 2024), and section of the card."""
