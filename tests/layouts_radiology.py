"""Radiological datasets as their downloads lie on disk."""

import numpy as np

NIH = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
CHEXPERT = ("Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,"
            "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n")
PADCHEST = "ImageID,StudyDate_DICOM,PatientID,PatientBirth,PatientSex_DICOM,Projection,Labels\n"
VINDR = "image_id,rad_id,Aortic enlargement,Clavicle fracture,Rib fracture,Pneumonia,No finding\n"
MIMIC = "subject_id,study_id,Atelectasis,No Finding,Pneumonia,Support Devices\n"
CBIS = ("patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,mass margins,"
        "assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path\n")
GRAZ = ("filestem,patient_id,study_number,timehash,gender,age,laterality,projection,initial_exam,ao_classification,cast,"
        "diagnosis_uncertain,osteopenia,fracture_visible,metal,pixel_spacing,device_manufacturer\n")
FRACATLAS = ("image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique\n")
DEEP_LESION = "File_name,Patient_index,Key_slice_index,Coarse_lesion_type,Possibly_noisy,DICOM_windows,Patient_gender,Patient_age\n"
CT_RATE = ("VolumeName,Medical material,Arterial wall calcification,Cardiomegaly,Pericardial effusion,Hiatal hernia,"
           "Lymphadenopathy,Emphysema,Lung nodule\n")
NBIA = ("Series UID,Collection,3rd Party Analysis,Data Description URI,Subject ID,Study UID,Study Description,Study Date,"
        "Series Description,Manufacturer,Modality,SOP Class Name,SOP Class UID,Number of Images,File Size,File Location,"
        "Download Timestamp\n")
VINDR_MAMMO = "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split\n"


def body(tumour: bool = False) -> np.ndarray:
    """A ball of tissue, (32, 32, 20); or the labels of a tumour in its middle slices."""
    x, y, z = np.mgrid[-16:16, -16:16, -10:10]
    if tumour:
        return ((x**2 + y**2 < 16) & (abs(z) < 4)).astype(np.uint8) * 4
    texture = np.random.default_rng(0).normal(500, 50, x.shape)
    return np.where(x**2 + y**2 + z**2 < 120, texture, 0).astype(np.int16)


FILM = "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC"
BRATS = "RSNA_ASNR_MICCAI_BraTS2021_TrainingData/BraTS2021_00000/BraTS2021_00000_"
LAYOUTS = {
    "nih_chestxray14": {"Data_Entry_2017.csv": NIH + "00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,M,PA\n"
                        "00000002_000.png,No Finding,0,2,414,F,AP\n", "images_001/images/00000001_000.png": None,
                        "images_001/images/00000002_000.png": None, "images_002/images/00000003_000.png": None},
    "chexpert": {"CheXpert-v1.0-small/train.csv": CHEXPERT +
                 "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n"
                 "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Male,0,Frontal,PA,,,-1.0,1.0,,,,-1.0,,0.0,,,,\n",
                 "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg": None,
                 "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg": None,
                 "CheXpert-v1.0-small/train/patient00002/study2/view2_lateral.jpg": None},
    "padchest": {"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz": PADCHEST +
                 "1_a.png,20140915,839860,1930.0,F,L,\"['pulmonary fibrosis', 'kyphosis']\"\n"
                 "2_b.png,20150101,2,1990.0,M,PA,['normal']\n3_c.png,20150101,3,1990.0,M,COSTAL,['normal']\n"
                 "4_d.png,20150101,4,,,AP_horizontal,\"['normal', 'pacemaker']\"\n",
                 "0/1_a.png": None, "0/2_b.png": None, "1/3_c.png": None, "1/4_d.png": None},
    "vindr_cxr": {"annotations/image_labels_train.csv": VINDR + "aaa,R1,1,0,1,0,0\naaa,R2,1,0,0,0,0\naaa,R3,0,0,0,0,0\n"
                  "bbb,R1,0,0,0,0,1\nbbb,R2,0,0,0,0,1\nbbb,R3,0,0,0,0,1\n",
                  "train/aaa.dicom": None, "train/bbb.dicom": None, "test/ccc.dicom": None},
    "mimic_cxr_jpg": {"mimic-cxr-2.0.0-chexpert.csv.gz": MIMIC + "10000032,50414267,,1.0,,\n10000764,57375967,1.0,,-1.0,1.0\n",
                      "mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,ViewPosition\n"
                      "02aa804e-bde0,10000032,50414267,PA\n096052b7-d256,10000764,57375967,LATERAL\n",
                      "files/p10/p10000032/s50414267/02aa804e-bde0.jpg": None,
                      "files/p10/p10000764/s57375967/096052b7-d256.jpg": None},
    "rsna_pneumonia": {"stage_2_detailed_class_info.csv": "patientId,class\n0004cfab,No Lung Opacity / Not Normal\n"
                       "00313ee0,Normal\n00436515,Lung Opacity\n00436515,Lung Opacity\n",
                       "stage_2_train_images/0004cfab.dcm": None, "stage_2_train_images/00313ee0.dcm": None,
                       "stage_2_train_images/00436515.dcm": None},
    "siim_acr_pneumothorax": {"train-rle.csv": "ImageId, EncodedPixels\n1.2.1, -1\n1.2.2, 175349 7 1013\n1.2.2, 3 4 5\n",
                              "dicom-images-train/1.1/1.1.1/1.2.1.dcm": None, "dicom-images-train/1.1/1.1.2/1.2.2.dcm": None,
                              "dicom-images-test/1.1/1.1.3/1.2.3.dcm": None},
    "shenzhen_tb": {"ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png": None, "ChinaSet_AllFiles/CXR_png/CHNCXR_0327_1.png": None,
                    "ChinaSet_AllFiles/ClinicalReadings/CHNCXR_0001_0.txt": "male 45yrs\nnormal",
                    "ChinaSet_AllFiles/ClinicalReadings/CHNCXR_0327_1.txt": "Female , 8months\r\nPTB in the right upper field"},
    "montgomery_tb": {"MontgomerySet/CXR_png/MCUCXR_0001_0.png": None, "MontgomerySet/CXR_png/MCUCXR_0104_1.png": None,
                      "MontgomerySet/ManualMask/leftMask/MCUCXR_0001_0.png": None,
                      "MontgomerySet/ClinicalReadings/MCUCXR_0001_0.txt": "Patient's Sex: F\nPatient's Age: 027Y\nnormal\n"},
    "covid_radiography": {"COVID-19_Radiography_Dataset/COVID/images/COVID-1.png": None,
                          "COVID-19_Radiography_Dataset/COVID/masks/COVID-1.png": None,
                          "COVID-19_Radiography_Dataset/Lung_Opacity/images/Lung_Opacity-1.png": None,
                          "COVID-19_Radiography_Dataset/Normal/images/Normal-1.png": None,
                          "COVID-19_Radiography_Dataset/Viral Pneumonia/images/Viral Pneumonia-1.png": None},
    "mura": {"MURA-v1.1/train/XR_ELBOW/patient00011/study1_negative/image1.png": None,
             "MURA-v1.1/valid/XR_FINGER/patient11185/study1_positive/image2.png": None,
             "MURA-v1.1/train/XR_ELBOW/patient00011/study1_negative/._image1.png": ""},
    "grazpedwri_dx": {"dataset.csv": GRAZ +
                      "0001_1297860395_01_WRI-L1_M014,1,1,1297860395,M,14.1,L,1,1,23r-M/2.1,,,,1,,0.144,Siemens\n"
                      "0002_0354485735_01_WRI-R1_F012,2,1,354485735,F,12.0,R,2,1,,1,1,,1,,0.144,Siemens\n"
                      "0003_1_01_WRI-R1_F009,3,1,1,F,9,R,3,1,,,,,,,0.144,Siemens\n",
                      "images_part1/0001_1297860395_01_WRI-L1_M014.png": None,
                      "images_part1/0002_0354485735_01_WRI-R1_F012.png": None, "images_part2/0003_1_01_WRI-R1_F009.png": None},
    "fracatlas": {"FracAtlas/dataset.csv": FRACATLAS + "IMG0000000.jpg,0,1,0,0,0,0,1,0,0,1,1,0\n"
                  "IMG0000019.jpg,1,0,0,0,0,1,0,1,2,0,0,1\n",
                  "FracAtlas/images/Non_fractured/IMG0000000.jpg": None, "FracAtlas/images/Fractured/IMG0000019.jpg": None},
    "rsna_bone_age": {"boneage-training-dataset.csv": "id,boneage,male\n1377,180,False\n1378,12,True\n",
                      "boneage-training-dataset/1377.png": None, "boneage-training-dataset/1378.png": None},
    "rsna_ich": {"stage_2_train.csv": "ID,Label\n" + "".join(
        f"ID_12cadc6af_{kind},{int(kind in ('subdural', 'any'))}\nID_000012eaf_{kind},0\n" for kind in (
            "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")),
                 "stage_2_train/ID_12cadc6af.dcm": None, "stage_2_train/ID_000012eaf.dcm": None,
                 "stage_2_test/ID_00000test.dcm": None},
    "ct_rate": {"multi_abnormality_labels/train_predicted_labels.csv": CT_RATE + "train_1_a_1.nii.gz,0,1,0,0,0,1,0,1\n",
                "metadata/train_metadata.csv": "VolumeName,PatientSex,PatientAge\ntrain_1_a_1.nii.gz,F,060Y\n",
                "train/train_1/train_1_a/train_1_a_1.nii.gz": body()},
    "lidc_idri": {"metadata.csv": NBIA + "1.3,LIDC-IDRI,,http,LIDC-IDRI-0001,1.2,,01-01-2000,,GE,CT,CT Image Storage,1.5,133,70 MB,"
                  ".\\LIDC-IDRI\\LIDC-IDRI-0001\\01-01-2000-30178\\3000566-03192,2020\n"
                  "1.4,LIDC-IDRI,,http,LIDC-IDRI-0001,1.6,,01-01-2000,,GE,DX,DX Image Storage,1.7,2,14 MB,"
                  ".\\LIDC-IDRI\\LIDC-IDRI-0001\\01-01-2000-35511\\3000923-62357,2020\n",
                  "LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-30178/3000566-03192/1-001.dcm": None,
                  "LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-35511/3000923-62357/1-1.dcm": None},
    "deep_lesion": {"DL_info.csv": DEEP_LESION + '000001_01_01_109.png,1,109,3,0,"-175, 275",F,62\n'
                    '000002_01_01_014.png,2,14,-1,0,"-175, 275",M,NaN\n000003_01_01_001.png,3,1,5,1,"-1500, 500",M,50\n',
                    "Images_png/000001_01_01/109.png": None, "Images_png/000001_01_01/110.png": None,
                    "Images_png/000002_01_01/014.png": None, "Images_png/000003_01_01/001.png": None},
    "covid_ct": {"Images-processed/CT_COVID/2020.01.24.919183-p27-132.png": None, "Images-processed/CT_NonCOVID/0.jpg": None},
    "sars_cov_2_ct": {"COVID/Covid (1).png": None, "non-COVID/Non-Covid (1).png": None},
    "brats": {BRATS + "flair.nii.gz": body(), BRATS + "t1ce.nii.gz": body(), BRATS + "seg.nii.gz": body(tumour=True),
              "BraTS-MEN-00004-000/BraTS-MEN-00004-000-t2w.nii.gz": body()},
    "ixi": {"IXI-T1/IXI002-Guys-0828-T1.nii.gz": body(), "IXI-PD/IXI012-HH-1211-PD.nii.gz": body()},
    "acdc": {"database/training/patient001/patient001_frame01.nii.gz": body(),
             "database/training/patient001/patient001_frame01_gt.nii.gz": body(tumour=True),
             "database/training/patient001/Info.cfg": "ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n",
             "database/training/patient061/patient061_frame01.nii.gz": body(),
             "database/training/patient061/Info.cfg": "ED: 1\nES: 9\nGroup: NOR\n"},
    "hc18": {"training_set/000_HC.png": None, "training_set/000_HC_Annotation.png": None, "training_set/010_2HC.png": None,
             "training_set_pixel_size_and_HC.csv": "filename,pixel size(mm),head circumference (mm)\n000_HC.png,0.06,44.3\n"},
    "fetal_planes": {"FETAL_PLANES_DB_data.csv": "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train \n"
                     "Patient00001_Plane1_1_of_2;1;Other;Not A Brain;Other;Aloka;1\n"
                     "Patient00001_Plane3_1_of_1;1;Fetal brain;Trans-ventricular;Other;Aloka;1\n",
                     "Images/Patient00001_Plane1_1_of_2.png": None, "Images/Patient00001_Plane3_1_of_1.png": None},
    "bus_bra": {"BUSBRA/bus_data.csv": "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX\n"
                "bus_0001-l,1,Fibroadenoma,benign,4,GE,350,400,left,\"[1, 2, 3, 4]\"\n",
                "BUSBRA/Images/bus_0001-l.png": None, "BUSBRA/Masks/mask_0001-l.png": None},
    "camus": {"database_nifti/patient0001/patient0001_2CH_ED.nii.gz": body()[:, :, 10],
              "database_nifti/patient0001/patient0001_2CH_ED_gt.nii.gz": body(tumour=True)[:, :, 10],
              "database_nifti/patient0001/patient0001_4CH_ES.nii.gz": body()[:, :, 10],
              "database_nifti/patient0001/Info_2CH.cfg": "ED: 1\nES: 18\nNbFrame: 18\nSex: F\nAge: 56\nImageQuality: Good\n"},
    "cbis_ddsm": {"mass_case_description_train_set.csv": CBIS + "P_00001,3,LEFT,CC,1,mass,IRREGULAR-ARCHITECTURAL_DISTORTION,"
                  "SPICULATED,4,MALIGNANT,4,Mass-Training_P_00001_LEFT_CC/1.3.1/1.3.2/000000.dcm,x,y\n"
                  "P_00001,3,LEFT,CC,2,mass,OVAL,CIRCUMSCRIBED,2,BENIGN_WITHOUT_CALLBACK,4,"
                  "Mass-Training_P_00001_LEFT_CC/1.3.1/1.3.2/000000.dcm,x,y\n",
                  "calc_case_description_test_set.csv": "patient_id,breast density,left or right breast,image view,abnormality id,"
                  "abnormality type,calc type,calc distribution,assessment,pathology,subtlety,image file path\n"
                  "P_00038,2,RIGHT,MLO,1,calcification,PUNCTATE,CLUSTERED,4,BENIGN,2,"
                  "Calc-Test_P_00038_RIGHT_MLO/1.3.8/1.3.9/000000.dcm\n",
                  f"{FILM}/07-20-2016-DDSM-NA-30288/1.000000-full mammogram images-24515/1-1.dcm": None,
                  f"{FILM}_1/07-21-2016-DDSM-NA-1/1.000000-cropped images-2/1-2.dcm": None,
                  "jpeg/1.3.9/1-001.jpg": None, "jpeg/1.3.77/1-001.jpg": None},
    "vindr_mammo": {"breast-level_annotations.csv": VINDR_MAMMO +
                    "s1,r1,i1,L,CC,3518,2800,BI-RADS 4,DENSITY C,training\ns1,r1,i2,R,MLO,3518,2800,BI-RADS 1,DENSITY A,training\n",
                    "finding_annotations.csv": "study_id,image_id,finding_categories,finding_birads\n"
                    "s1,i1,\"['Mass', 'Skin Thickening']\",BI-RADS 4\ns1,i2,['No Finding'],\n",
                    "images/s1/i1.dicom": None, "images/s1/i2.dicom": None},
    "inbreast": {"INbreast.csv": "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads\n"
                 "removed;removed;R;CC;201001;20586908;4;2\nremoved;removed;L;MLO;201001;20586934;1;1\n",
                 "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm": None,
                 "AllDICOMs/20586934_6c613a14b80a8591_MG_L_ML_ANON.dcm": None},
}
