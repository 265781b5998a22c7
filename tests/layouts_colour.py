"""Datasets of skin, eye, gut, larynx, operations, tissue and blood, and of arrays, as their downloads lie on disk."""

import numpy as np

from medisyn.data.sources import medmnist

HAM = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
ISIC2019 = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
ISIC2020 = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"
FITZPATRICK = ("md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url,"
               "url_alphanum\n")
DERM7PT = "case_num,diagnosis,seven_point_score,elevation,location,sex,clinic,derm\n"
ODIR = ("ID,Patient Age,Patient Sex,Left-Fundus,Right-Fundus,Left-Diagnostic Keywords,Right-Diagnostic Keywords,N,D,G,C,A,H,M,O,"
        "filepath,labels,target,filename\n")
DEEPDRID = "patient_id,image_id,image_path,Overall quality,left_eye_DR_Level,right_eye_DR_Level,patient_DR_Level\n"
CHOLEC80 = "Frame\tGrasper\tBipolar\tHook\tScissors\tClipper\tIrrigator\tSpecimenBag\n"
SOB = "BreaKHis_v1/histology_slides/breast/"
REGULAR = "regular_fundus_images/regular-fundus-training/"

LAYOUTS = {
    "ham10000": {"HAM10000_metadata.csv": HAM + "HAM_0000118,ISIC_0027419,bkl,histo,80.0,male,scalp\n"
                 "HAM_0000118,ISIC_0025030,bkl,histo,80.0,male,scalp\nHAM_0000042,ISIC_0024306,nv,follow_up,,unknown,unknown\n",
                 "HAM10000_images_part_1/ISIC_0027419.jpg": None, "HAM10000_images_part_1/ISIC_0025030.jpg": None,
                 "HAM10000_images_part_2/ISIC_0024306.jpg": None},
    "isic2018": {"ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv":
                 "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nISIC_0024306,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n"
                 "ISIC_0024310,0.0,0.0,0.0,1.0,0.0,0.0,0.0\n",
                 "ISIC2018_Task3_Training_LesionGroupings.csv": "image,lesion_id,diagnosis_confirm_type\n"
                 "ISIC_0024306,HAM_0000550,serial imaging showing no change\n",
                 "ISIC2018_Task3_Training_Input/ISIC_0024306.jpg": None,
                 "ISIC2018_Task3_Training_Input/ISIC_0024310.jpg": None},
    "isic2019": {"ISIC_2019_Training_GroundTruth.csv": ISIC2019 + "ISIC_0000000,0.0,1.0,0,0,0,0,0,0,0\n"
                 "ISIC_0000002_downsampled,0,0,0,0,0,0,0,0,1.0\nISIC_0053457,0,0,0,0,0,0,0,1.0,0\n",
                 "ISIC_2019_Training_Metadata.csv": "image,age_approx,anatom_site_general,lesion_id,sex\n"
                 "ISIC_0000000,55.0,posterior torso,,female\nISIC_0053457,30.0,lower extremity,BCN_0003884,male\n",
                 "ISIC_2019_Training_Input/ISIC_0000000.jpg": None, "ISIC_2019_Training_Input/ISIC_0053457.jpg": None,
                 "ISIC_2019_Training_Input/ISIC_0000002_downsampled.jpg": None},
    "isic2020": {"ISIC_2020_Training_GroundTruth.csv": ISIC2020 +
                 "ISIC_2637011,IP_7279968,male,45.0,head/neck,unknown,benign,0\n"
                 "ISIC_0149568,IP_0962375,female,55.0,upper extremity,melanoma,malignant,1\n"
                 "ISIC_0052212,IP_2842074,female,50.0,lower extremity,nevus,benign,0\n",
                 "train/ISIC_2637011.jpg": None, "train/ISIC_0149568.jpg": None, "train/ISIC_0052212.jpg": None,
                 "test/ISIC_0052060.jpg": None},
    "fitzpatrick17k": {"fitzpatrick17k.csv": FITZPATRICK +
                       "5e82a45bc5d78bd24ae9202d194423f8,3,3,psoriasis,inflammatory,non-neoplastic,,http://a,b.jpg\n"
                       "fa2911a9b13b6f8af79cb700937cc14f,-1,1,basal cell carcinoma,malignant epidermal,malignant,1 Diagnostic,,\n"
                       "d2bac3c9e4499032ca8e9b07c7d3bc40,2,3,acne,inflammatory,non-neoplastic,3 Wrongly labelled,,\n",
                       "images/5e82a45bc5d78bd24ae9202d194423f8.jpg": None,
                       "images/fa2911a9b13b6f8af79cb700937cc14f.jpg": None,
                       "images/d2bac3c9e4499032ca8e9b07c7d3bc40.jpg": None},
    "ddi": {"ddidiversedermatologyimages/ddi_metadata.csv": ",DDI_ID,DDI_file,skin_tone,malignant,disease\n"
            "0,1,000001.png,56,True,melanoma\n1,2,000002.png,12,False,melanocytic-nevi\n2,3,000003.png,34,False,verruca-vulgaris\n",
            "ddidiversedermatologyimages/000001.png": None, "ddidiversedermatologyimages/000002.png": None,
            "ddidiversedermatologyimages/000003.png": None},
    "derm7pt": {"release_v0/meta/meta.csv": DERM7PT + "1,clark nevus,0,flat,back,female,NEL/NEL025.JPG,NEL/Nel026.jpg\n"
                "2,melanoma (less than 0.76 mm),5,palpable,acral,male,NHL/Nhl001.jpg,NHL/Nhl002.jpg\n",
                "release_v0/images/NEL/NEL025.jpg": None, "release_v0/images/NEL/Nel026.jpg": None,
                "release_v0/images/NHL/Nhl001.jpg": None, "release_v0/images/NHL/Nhl002.jpg": None},
    "aptos2019": {"train.csv": "id_code,diagnosis\n000c1434d8d7,2\n0024cdab0c1e,0\n", "train_images/000c1434d8d7.png": None,
                  "train_images/0024cdab0c1e.png": None, "test_images/0005cfc8afb6.png": None},
    "eyepacs": {"trainLabels.csv": "image,level\n10_left,0\n10_right,4\n", "train/10_left.jpeg": None, "train/10_right.jpeg": None},
    "rfmid": {"Training_Set/RFMiD_Training_Labels.csv": "ID,Disease_Risk,DR,ARMD,MH,BRVO,CRVO,ODC\n"
              "1,1,1,0,0,0,1,0\n2,0,0,0,0,0,0,0\n",
              "Test_Set/RFMiD_Testing_Labels.csv": "ID,Disease_Risk,DR,ARMD,MH,BRVO,CRVO,ODC\n1,1,0,0,1,0,0,0\n",
              "Training_Set/Training/1.png": None, "Training_Set/Training/2.png": None, "Test_Set/Test/1.png": None},
    "odir5k": {"full_df.csv": ODIR +
               "0,69,Female,0_left.jpg,0_right.jpg,cataract,normal fundus,0,0,0,1,0,0,0,0,x,['N'],[],0_right.jpg\n"
               "1,57,Male,1_left.jpg,1_right.jpg,\"mild nonproliferative retinopathy，suspected glaucoma\","
               "\"lens dust，normal fundus\",0,1,0,0,0,0,0,0,x,['D'],[],1_left.jpg\n",
               "ODIR-5K/Training Images/0_left.jpg": None, "ODIR-5K/Training Images/0_right.jpg": None,
               "ODIR-5K/Training Images/1_left.jpg": None, "ODIR-5K/Training Images/1_right.jpg": None,
               "preprocessed_images/0_right.jpg": None},
    "deepdrid": {REGULAR + "regular-fundus-training.csv": DEEPDRID + "1,1_l1,\\1\\1_l1.jpg,1,0,,0\n1,1_r2,\\1\\1_r2.jpg,1,,3,3\n"
                 "2,2_l1,\\2\\2_l1.jpg,0,5,,5\n", REGULAR + "Images/1/1_l1.jpg": None, REGULAR + "Images/1/1_r2.jpg": None,
                 REGULAR + "Images/2/2_l1.jpg": None,
                 "ultra-widefield_images/ultra-widefield-training/Images/1/1_l1.jpg": None},
    "messidor2": {"messidor_data.csv": "image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable\n"
                  "20051020_43808_0100_PP.png,0,0,1\n20051020_43832_0100_PP.png,1,1,1\nIM000001.jpg,,,0\n",
                  "messidor-2.csv": "20051020_43808_0100_PP.png;20051020_43832_0100_PP.png\n",
                  "IMAGES/20051020_43808_0100_PP.png": None, "IMAGES/20051020_43832_0100_PP.png": None,
                  "IMAGES/IM000001.JPG": None},
    "drive": {"DRIVE/training/images/21_training.tif": None, "DRIVE/test/images/01_test.tif": None},
    "oct2017": {"OCT2017/train/CNV/CNV-1016042-1.jpeg": None, "OCT2017/test/NORMAL/NORMAL-1073137-1.jpeg": None},
    "octdl": {"OCTDL_labels.csv": "file_name,disease,subcategory,condition,patient_id,eye,sex,year,image_width,image_height\n"
              "amd_1047099_1,AMD,early,drusen,161,OD,F,1945,1000,300\nno_1,NO,,,162,,,,1000,300\n",
              "OCTDL/AMD/amd_1047099_1.jpg": None, "OCTDL/NO/no_1.jpg": None},
    "hyperkvasir": {"labeled-images/image-labels.csv": "Video file,Organ,Finding,Classification\n",
                    "labeled-images/upper-gi-tract/pathological-findings/esophagitis-a/1.jpg": None,
                    "labeled-images/upper-gi-tract/anatomical-landmarks/pylorus/2.jpg": None,
                    "labeled-images/lower-gi-tract/pathological-findings/ulcerative-colitis-grade-2/3.jpg": None,
                    "labeled-images/lower-gi-tract/pathological-findings/ulcerative-colitis-grade-0-1/4.jpg": None,
                    "labeled-images/lower-gi-tract/therapeutic-interventions/dyed-lifted-polyps/5.jpg": None},
    "kvasir_v2": {"kvasir-dataset-v2/normal-cecum/1.jpg": None, "kvasir-dataset-v2/ulcerative-colitis/2.jpg": None},
    "gastrovision": {"Gastrovision/Colon polyps/1.jpg": None, "Gastrovision/Retroflex rectum/2.jpg": None,
                     "Gastrovision/Gastroesophageal_junction_normal z-line/3.jpg": None},
    "limuc": {"patient_based_classified_images/10/Mayo 0/UC_patient_10_2.bmp": None,
              "patient_based_classified_images/10/Mayo 3/UC_patient_10_16.bmp": None,
              "train_and_validation_sets/Mayo 3/UC_patient_10_16.bmp": None},
    "cholecseg8k": {"video01/video01_00080/frame_80_endo.png": None, "video01/video01_00080/frame_80_endo_mask.png": None,
                    "video01/video01_00080/frame_80_endo_color_mask.png": None},
    "cholec80": {"cholec80/videos/video01.mp4": None, "cholec80/tool_annotations/video01-tool.txt": CHOLEC80 + "".join(
        f"{25 * n}\t{int(n < 10)}\t0\t0\t0\t0\t0\t0\n" for n in range(21)), "cholec80/tool_annotations/video02-tool.txt": CHOLEC80},
    "dsad": {"liver/01/image00.png": None, "liver/01/mask00.png": None, "multilabel/03/image12.png": None},
    "bagls": {"training/0.png": None, "training/0_seg.png": None, "test/1.png": None, "test/1_seg.png": None,
              "training/0.meta": '{"Subject disorder status": "healthy", "Subject sex": "w", "Age range (yrs)": "20-30"}',
              "test/1.meta": '{"Subject disorder status": "Muscle tension dysphonia", "Subject sex": "m"}'},
    "nct_crc_he": {"NCT-CRC-HE-100K/ADI/ADI-AAAFLCLY.tif": None, "NCT-CRC-HE-100K/BACK/BACK-AAAIMRKI.tif": None,
                   "CRC-VAL-HE-7K/TUM/TUM-TCGA-AAICEQFN.tif": None, "NCT-CRC-HE-100K/NORM/NORM-AAAWMSFI.tif": None},
    "breakhis": {SOB + "benign/SOB/adenosis/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png": None,
                 SOB + "malignant/SOB/ductal_carcinoma/SOB_M_DC_14-10926/100X/SOB_M_DC-14-10926-100-001.png": None},
    "mhist": {"annotations.csv": "Image Name,Majority Vote Label,Number of Annotators who Selected SSA (Out of 7),Partition\n"
              "MHIST_aaa.png,SSA,6,train\nMHIST_aab.png,HP,0,train\n", "images/MHIST_aaa.png": None, "images/MHIST_aab.png": None},
    "lymph_node_patches": {"train_labels.csv": "id,label\nf38a6374,0\nc18f2d88,1\n", "train/f38a6374.tif": None,
                           "train/c18f2d88.tif": None, "test/0b2ea2a8.tif": None},
    "bach": {f"ICIAR2018_BACH_Challenge/Photos/{kind}/{name}001.tif": None
             for kind, name in (("Benign", "b"), ("InSitu", "is"), ("Invasive", "iv"), ("Normal", "n"))},
    "raabin_wbc": {"Train/Basophil/20190526_162951_0.jpg": None, "TestA/Neutrophil/95-5-26-1-001_0.jpg": None},
    "malaria_cells": {"cell_images/Parasitized/C33P1thinF_IMG_20150619_114756a_cell_179.png": None,
                      "cell_images/Uninfected/C1_thinF_IMG_20150604_104722_cell_9.png": None,
                      "cell_images/cell_images/Uninfected/C1_thinF_IMG_20150604_104722_cell_9.png": None},
    "c_nmc": {"C-NMC_training_data/fold_0/all/UID_11_10_1_all.bmp": None,
              "C-NMC_training_data/fold_0/hem/UID_H10_1_1_hem.bmp": None},
    "aml_cytomorphology": {"AML-Cytomorphology_LMU/NGS/NGS_0001.tiff": None, "AML-Cytomorphology_LMU/MYO/MYO_0001.tiff": None,
                           "AML-Cytomorphology_LMU/PMB/PMB_0001.tiff": None},
}


def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of one set of MedMNIST: a row a kind in each split, 28 x 28 pixels."""
    many = name == "chestmnist"
    kinds = {"pathmnist": 9, "dermamnist": 7, "octmnist": 4, "pneumoniamnist": 2, "retinamnist": 5, "breastmnist": 2,
             "bloodmnist": 8}.get(name, 11)
    labels = np.eye(14, dtype=np.int64)[:3] if many else np.arange(kinds)[:, None]
    colour = (3,) if name in ("pathmnist", "dermamnist", "retinamnist", "bloodmnist") else ()
    pictures = np.zeros((len(labels), 28, 28, *colour), np.uint8)
    return {f"{split}_{what}": held for split in ("train", "val", "test") for what, held in (("images", pictures),
                                                                                          ("labels", labels))}


LAYOUTS |= {name: {f"{name}.npz": arrays(name), f"{name}_64.npz": arrays(name)} for name in medmnist.SETS}
