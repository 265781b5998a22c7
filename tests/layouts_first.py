"""The first twenty public datasets as their downloads lie on disk; None is a small image."""

COVID = "patientid,sex,age,finding,intubation_present,view,modality,filename,license,clinical_notes\n"
PAD = "patient_id,diagnostic,region,age,gender,fitspatrick,itch,bleed,elevation,img_id\n"
LAYOUTS = {
    "kermany_cxr": {"chest_xray/train/NORMAL/IM-0115-0001.jpeg": None,
                    "chest_xray/test/NORMAL/NORMAL2-IM-0115-0001.jpeg": None,
                    "chest_xray/val/PNEUMONIA/person1946_bacteria_4874.jpeg": None,
                    "chest_xray/train/PNEUMONIA/person3_virus_15.jpeg": None,
                    "chest_xray/chest_xray/train/PNEUMONIA/person3_virus_15.jpeg": None,
                    "__MACOSX/chest_xray/train/NORMAL/._IM-0115-0001.jpeg": "", "chest_xray/train/.DS_Store": ""},
    "covid_cxr_open": {"metadata.csv": COVID + "219,M,,COVID-19,,AP Supine,X-ray,b343e657.jpg,CC BY 3.0,\n"
                       '7,F,51,Pneumonia/Viral/COVID-19,Y,PA,X-ray,two.png,CC BY-SA,"a note, never copied"\n'
                       "8,,999,No Finding,N,L,X-ray,three.png,CC0,\n9,M,40,ARDS,,,X-ray,four.png,CC BY-NC-SA,\n",
                       "images/b343e657.webp": None, "images/two.png": None, "images/three.png": None,
                       "images/four.png": None, "images/five.png": None},
    "knee_oa_xray": {"train/0/9003175L.png": None, "val/1/9003175R.png": None, "test/3/9011053L.png": None},
    "brain_tumor_mri": {"Training/glioma/Tr-gl_0010.jpg": None, "Testing/notumor/Te-no_0102.jpg": None,
                        "Testing/notumor/Te-no_0040.jpg": None, "Training/pituitary/Tr-pi_0010.jpg": None},
    "open_ms_mri": {"metadata.csv": "file,patient,sequence,skull_stripped,age,sex,ms_type\n"
                    "a_z051.png,C07,T1 post-contrast,True,53,F,RR\nb_z051.png,L01,FLAIR,False,20,M,\n",
                    "a_z051.png": None, "b_z051.webp": None},
    "busi": {"Dataset_BUSI_with_GT/benign/benign (1).png": None,
             "Dataset_BUSI_with_GT/benign/benign (1)_mask.png": None,
             "Dataset_BUSI_with_GT/benign/benign (1)_mask_1.png": None,
             "Dataset_BUSI_with_GT/malignant/malignant (1).png": None,
             "Dataset_BUSI_with_GT/normal/normal (1).png": None},
    "mini_mias": {"Info.txt": "mdb001 G CIRC B 535 425 197\nmdb002 G CALC B 522 280 69\nmdb002 G SPIC M 500 200 10\n"
                  "mdb003 D NORM \nmdb059 F CIRC B\nmdb216 D CALC M *NOTE 3* \nmdb150 X ARCH B\n",
                  "all-mias/mdb001.pgm": None, "all-mias/mdb002.pgm": None, "all-mias/mdb003.pgm": None,
                  "all-mias/mdb216.pgm": None, "all-mias/mdb004.pgm": None},
    "kidney_ct": {"Training/Cyst/Cyst- (1).jpg": None, "Testing/Normal/Normal- (1).jpg": None},
    "head_ct": {"labels.csv": "id, hemorrhage\n0,1\n100,0\n", "head_ct/000.png": None, "head_ct/100.png": None},
    "lc25000": {"lung_colon_image_set/lung_image_sets/lung_aca/lungaca1.jpeg": None, "groups.csv": "file,source_tile\n"
                "colon_n/colonn1.webp,colon_n_7\n", "lung_colon_image_set/colon_image_sets/colon_n/colonn1.jpeg": None,
                "lung_colon_image_set/lung_image_sets/lung_scc/lungscc1.jpeg": None},
    "pbc_blood": {"PBC_dataset_normal_DIB/neutrophil/BNE_495078.jpg": None,
                  "PBC_dataset_normal_DIB/neutrophil/NEUTROPHIL_1.jpg": None,
                  "PBC_dataset_normal_DIB/ig/PMY_1.jpg": None,
                  "PBC_dataset_normal_DIB/platelet/PLATELET_1.jpg": None},
    "bccd": {"BCCD/JPEGImages/BloodImage_00000.jpg": None, "BCCD/Annotations/BloodImage_00000.xml": "<annotation/>"},
    "isic2017": {"ISIC-2017_Training_Part3_GroundTruth.csv": "image_id,melanoma,seborrheic_keratosis\n"
                 "ISIC_0000000,0.0,0.0\nISIC_0000002,1.0,0.0\nISIC_0000003,0.0,1.0\n",
                 "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv": "image_id,age_approximate,sex\n"
                 "ISIC_0000000,unknown,female\n",
                 "ISIC-2017_Validation_Classes.csv": "image_id,melanoma\nISIC_0001769,0.0\n",
                 "ISIC-2017_Training_Data/ISIC_0000000.jpg": None,
                 "ISIC-2017_Training_Data/ISIC_0000000_superpixels.png": None,
                 "ISIC-2017_Training_Data/ISIC_0000002.jpg": None, "ISIC-2017_Training_Data/ISIC_0000003.jpg": None,
                 "ISIC-2017_Validation_Data/ISIC_0001769.jpg": None, "ISIC-2017_Test_v2_Data/ISIC_0012086.jpg": None},
    "pad_ufes_20": {"metadata.csv": PAD + "PAT_1,BCC,CHEST,54,FEMALE,3.0,True,UNK,False,PAT_1_1_1.png\n"
                    "PAT_2,NEV,EAR,,,,False,False,True,PAT_2_2_2.png\n",
                    "images/imgs_part_1/PAT_1_1_1.png": None, "images/imgs_part_3/PAT_2_2_2.png": None,
                    "images/imgs_part_2/PAT_3_3_3.png": None},
    "vocal_folds": {"frames.csv": "path,patient,seq,classes_present\nimg/patient1/seq4/0001_l.png,patient1,seq4,"
                    "void|vocal folds|pathology|intubation\n", "img/patient1/seq4/0001_l.png": None,
                    "img/patient1/seq4/0002_l.png": None, "annot/patient1/seq4/0001_l.png": None},
    "laparoscopy": {"frames.csv": "file,case,video,frame,flag\n00001-21711-frame-0.jpg,00001,21711,0,blue_menu\n"
                    "00001-21711-frame-9.jpg,00001,21711,9,ok\n", "images/00001-21711-frame-0.jpg": None,
                    "images/00001-21711-frame-9.jpg": None, "images/00002-1-frame-9.jpg": None},
    "idrid": {"lesion_boxes.csv": "file,n_optic_disc,n_hard_exudate,n_haemorrhage_or_ma,visit\n0001.jpg,1,0,26,v1\n"
              "0002.jpg,1,0,0,v2\n", "images/0001.jpg": None, "images/0002.jpg": None, "images/0003.jpg": None},
    "chasedb1": {"Image_01L.jpg": None, "Image_01R.jpg": None, "Image_01L_1stHO.png": None,
                 "Image_01L_2ndHO.png": None},
    "unam_fundus_oct": {"EYE FUNDUS.csv": "Name,DME,DR,Size,Format\n0736_OI_f_1,1,-,1000x1000,jpg\n"
                        "0001_OD_f_1,0,NPDR,1000X1000,jpg\n",
                        "OCT.csv": "Name,DME,DR,Size,Format\n1222_OD_o_2,0,0,1408X573,jpg\n",
                        "EYE FUNDUS/EYE FUNDUS1/0736_OI_f_1.jpg": None, "EYE FUNDUS/EYE FUNDUS1/0001_od_f_1.jpg": None,
                        "OCT/OCT1/1222_OD_O_2.jpg": None},
    "cvc_clinicdb": {"metadata.csv": "frame_id,sequence_id\n1,1\n100,5\n", "cvclindb/PNG/Original/1.png": None,
                     "cvclindb/PNG/Ground Truth/1.png": None, "cvclindb/TIFF/Original/1.tif": None,
                     "cvclindb/PNG/Original/100.png": None},
}
